//! apt itself, on an archive of the test's own: one directory, whose packages nobody unpacks here.

use std::sync::{Arc, Mutex as Locked};

use sha2::{Digest as _, Sha256};

use super::*;
use crate::model::chain;

struct Archive {
    dir: tempfile::TempDir,
    apt: Apt,
    told: Arc<Locked<Vec<String>>>,
}

impl Archive {
    /// `None`, with a line that says why, where there is no apt.
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn new(trust: &str) -> Option<Self> {
        if !Path::new("/usr/bin/apt-get").exists() {
            eprintln!("skipped: this host has no apt");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        for part in ["repo", "etc/apt.conf.d", "etc/preferences.d", "etc/trusted.gpg.d", "into"] {
            fs::create_dir_all(dir.path().join(part)).unwrap();
        }
        let at = |name: &str| dir.path().join(name).display().to_string();
        let source = format!("deb {trust} copy:{} ./\n", at("repo"));
        fs::write(at("etc/sources.list"), source).unwrap();
        // What the host's administrator has said, and what must not be run here.
        let said = format!(
            "Dir::Etc \"{}/\";\nDir::Etc::sourceparts \"-\";\n\
             APT::Update::Post-Invoke {{ \"touch {}\"; \"false\"; }};\n",
            at("etc"),
            at("invoked"),
        );
        fs::write(at("apt.conf"), said).unwrap();
        let apt = Apt::new(dir.path()).with_config(Some(at("apt.conf").into()));
        let archive = Self { dir, apt, told: Arc::default() };
        archive.publish(&[]);
        Some(archive)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Name, version, what it depends on, its bytes.
    fn publish(&self, packages: &[(&str, &str, &str, &[u8])]) {
        let mut index = String::new();
        for (name, version, depends, bytes) in packages {
            let file = format!("{name}_{version}.deb");
            fs::write(self.at("repo").join(&file), bytes).unwrap();
            let digest = Sha256::digest(bytes);
            let sum: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let depends = match *depends {
                "" => String::new(),
                depends => format!("Depends: {depends}\n"),
            };
            index += &format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@x>\n\
                 {depends}Description: x\nFilename: ./{file}\nSize: {}\nSHA256: {sum}\n\n",
                bytes.len(),
            );
        }
        fs::write(self.at("repo/Packages"), index).unwrap();
    }

    async fn find(&self, package: &str) -> Result<KernelOffer, HostError> {
        let asked = DebianKernel::new(package, None).unwrap();
        self.apt.find(&asked, &self.progress(), &CancellationToken::new()).await
    }

    async fn download(&self, offer: &KernelOffer) -> Result<Vec<PathBuf>, HostError> {
        let cancel = CancellationToken::new();
        self.apt.download(offer, &self.at("into"), &self.progress(), &cancel).await
    }

    fn progress(&self) -> ProgressSink {
        let told = Arc::clone(&self.told);
        Arc::new(move |text| told.lock().unwrap().push(text))
    }
}

const REAL: &str = "linux-image-6.1.0-50-cloud-amd64";
const META: &str = "linux-image-cloud-amd64";

fn offer(version: &str, others: &[&str]) -> KernelOffer {
    let others = others.iter().map(|other| (*other).to_owned()).collect();
    KernelOffer { package: REAL.to_owned(), version: version.to_owned(), others }
}

#[tokio::test]
async fn a_package_that_stands_for_another_is_followed_and_the_newest_counts() {
    let Some(archive) = Archive::new("[trusted=yes]") else { return };
    let points = format!("{REAL} (= 6.1.1-1)");
    let modules = "kmod, linux-base (>= 4.3~), linux-modules-6.1.0-50 | x";
    archive.publish(&[
        (META, "6.1.1-1", &points, b"meta"),
        (REAL, "6.1.1-1", modules, b"kernel"),
        ("linux-modules-6.1.0-50", "6.1.1-1", "", b"modules"),
    ]);
    let found = archive.find(META).await.unwrap();
    assert_eq!(found, offer("6.1.1-1", &["linux-modules-6.1.0-50"]));
    assert_eq!(archive.find(REAL).await.unwrap(), found);
    let paths = archive.download(&found).await.unwrap();
    let contents: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(contents, [b"kernel".to_vec(), b"modules".to_vec()]);
    let told = archive.told.lock().unwrap().clone();
    let last = format!("downloading {REAL} 6.1.1-1: 100 %");
    assert!(told.contains(&last), "{told:?}");
    assert!(!archive.at("invoked").exists(), "what the host does after its own updates was done");
    // A later one, found without what is known of before.
    archive.publish(&[
        (META, "6.1.2-1", &points, b"meta"),
        (REAL, "6.1.1-1", "", b"kernel"),
        (REAL, "6.1.2-1", "", b"later"),
    ]);
    let later = archive.find(META).await.unwrap();
    assert_eq!(later, offer("6.1.2-1", &[]));
}

#[tokio::test]
async fn what_cannot_be_had_says_why() {
    let Some(archive) = Archive::new("[trusted=yes]") else { return };
    let circle = format!("{META}, x");
    archive.publish(&[(META, "1", REAL, b""), (REAL, "1", &circle, b"kernel")]);
    let error = archive.find("linux-image-nope").await.unwrap_err();
    assert_eq!(error.code, Code::NotFound, "{error:?}");
    assert!(error.hints.iter().any(|hint| hint.contains("apt-cache search")), "{error:?}");
    let error = archive.find(META).await.unwrap_err();
    assert!(error.code == Code::Invalid && chain(&error).contains("without end"), "{error:?}");
    // Changed since its digest was told.
    archive.publish(&[(REAL, "1", "", b"kernel")]);
    let found = archive.find(REAL).await.unwrap();
    fs::write(archive.at("repo").join(format!("{REAL}_1.deb")), b"kernal").unwrap();
    let error = archive.download(&found).await.unwrap_err();
    assert!(error.code == Code::Corrupt, "{error:?}");
    assert!(!archive.at("into").join(format!("{REAL}_1_all.deb")).exists());
    // One with a suite that the host's sources do not have.
    let asked = DebianKernel::new(REAL, Some("sid")).unwrap();
    let cancel = CancellationToken::new();
    let error = archive.apt.find(&asked, &archive.progress(), &cancel).await.unwrap_err();
    assert!(error.code == Code::NotFound && chain(&error).contains("'sid'"), "{error:?}");
}

#[tokio::test]
async fn an_archive_that_nobody_signed_is_refused_by_apt() {
    let Some(archive) = Archive::new("") else { return };
    archive.publish(&[(REAL, "1", "", b"kernel")]);
    fs::write(archive.at("repo/Release"), "Suite: x\n").unwrap();
    let error = archive.find(REAL).await.unwrap_err();
    assert!(error.code == Code::Refused && chain(&error).contains("not signed"), "{error:?}");
}

#[tokio::test]
async fn without_apt_there_is_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let apt = Apt { path: "/nonexistent", ..Apt::new(dir.path()) };
    let asked = DebianKernel::new(REAL, None).unwrap();
    let quiet: ProgressSink = Arc::new(|_| {});
    let error = apt.find(&asked, &quiet, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound, "{error:?}");
    assert!(chain(&error).starts_with("run apt-get"), "{error:?}");
    assert!(error.hints.iter().any(|hint| hint.contains("import a kernel's package")), "{error:?}");
}

#[tokio::test]
async fn a_cancel_ends_it_and_a_lock_is_waited_for() {
    let Some(archive) = Archive::new("[trusted=yes]") else { return };
    archive.publish(&[(REAL, "1", "", b"kernel")]);
    archive.find(REAL).await.unwrap();
    // As an apt of a daemon that was killed has it. Its lock is of the process, so another one holds it.
    let lock = archive.at("apt/lists/lock");
    #[allow(clippy::disallowed_methods, reason = "a test plays the other apt")]
    let mut holder = Command::new("perl")
        .args(["-e", HOLD])
        .arg(&lock)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut held = [0; 5];
    tokio::io::AsyncReadExt::read_exact(holder.stdout.as_mut().unwrap(), &mut held).await.unwrap();
    let cancel = CancellationToken::new();
    let (asked, progress) = (DebianKernel::new(REAL, None).unwrap(), archive.progress());
    let finding = archive.apt.find(&asked, &progress, &cancel);
    tokio::pin!(finding);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut finding).await;
    assert!(early.is_err(), "{early:?}");
    cancel.cancel();
    assert_eq!(finding.await.unwrap_err().code, Code::Cancelled);
    let finding = archive.find(REAL);
    let freeing = async {
        drop(holder.stdin.take());
        holder.wait().await.unwrap();
    };
    let (found, ()) = tokio::join!(finding, freeing);
    assert_eq!(found.unwrap(), offer("1", &[]));
}

const HOLD: &str = "use Fcntl; open(my $f, '+<', $ARGV[0]) or die; \
    my $l = pack('s s l! l! i', F_WRLCK, 0, 0, 0, 0); fcntl($f, F_SETLK, $l) or die $!; \
    $| = 1; print 'held!'; my $x = <STDIN>;";
