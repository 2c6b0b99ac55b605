//! Stock OpenSSH, and what is built on it, reach guests by name: `banger ssh-config`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Host, Outcome, busybox_with, new_host, noise, sha256};

/// Installs the block for a user whose home is in the test's own directory.
fn home(host: &Host) -> String {
    let home = host.dir.join("home");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    fs::write(home.join(".ssh/config"), "Host other\n    User somebody\n").unwrap();
    user(host, &host.dir.join("bin/banger").display().to_string(), &["ssh-config", "--install"])
        .ok();
    home.join(".ssh/config").display().to_string()
}

fn user(host: &Host, program: &str, args: &[&str]) -> Outcome {
    let mut command = host.command(program, args);
    command.env("HOME", host.dir.join("home")).stdin(Stdio::null());
    Outcome::of(command.output().unwrap())
}

fn client<'a>(config: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [&["-F", config, "-o", "BatchMode=yes"], args].concat()
}

/// A program of this machine's with all that it is linked to, for an image.
fn with_libraries(programs: &[&str]) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![];
    for program in programs {
        let listed = Command::new("ldd").arg(program).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
        for path in libraries.chain([*program]) {
            let name = path.trim_start_matches('/').to_owned();
            if !files.iter().any(|(known, _)| *known == name) {
                files.push((name, fs::read(path).unwrap()));
            }
        }
    }
    files
}

#[test]
fn openssh_and_what_is_built_on_it_are_at_home_in_a_guest() {
    let host = new_host!();
    let files = with_libraries(&["/usr/bin/rsync", "/usr/bin/git"]);
    let files: Vec<_> = files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    let image = host.dir.join("tools.tar");
    busybox_with(&files, &image);
    host.banger(&["image", "import", "tools", &image.display().to_string()]).ok();
    host.banger(&["vm", "run", "-d", "--image", "tools", "--memory", "256M", "--name", "g"]).ok();
    let config = home(&host);
    let ssh = |args: &[&str]| user(&host, "ssh", &client(&config, args));
    // The first time as any other: nothing is asked and nothing is warned of.
    let first = ssh(&["g.vm", "id -un; hostname"]).expect(0);
    assert_eq!((first.stdout.as_str(), first.stderr.as_str()), ("root\ng\n", ""));
    ssh(&["g.vm", "exit 7"]).expect(7);
    ssh(&["nobody.vm", "true"]).expect(255);
    // Files by each of them, there and back.
    let data = noise(3 << 20);
    let here = host.dir.join("data");
    fs::write(&here, &data).unwrap();
    let here = here.display().to_string();
    let back = host.dir.join("back");
    let same = |place: &str| {
        let sum = ssh(&["g.vm", &format!("sha256sum < {place}")]).ok();
        assert!(sum.starts_with(&sha256(&data)), "{place}: {sum}");
        fs::remove_file(&back).unwrap_or_default();
    };
    let returned = || assert!(fs::read(&back).unwrap() == data);
    let back_path = back.display().to_string();
    user(&host, "scp", &client(&config, &["-q", &here, "g.vm:scp"])).expect(0);
    same("/root/scp");
    user(&host, "scp", &client(&config, &["-q", "g.vm:scp", &back_path])).expect(0);
    returned();
    let batch = host.dir.join("batch");
    fs::write(&batch, format!("put {here} sftp\nget sftp {back_path}\n")).unwrap();
    let batch = batch.display().to_string();
    user(&host, "sftp", &client(&config, &["-q", "-b", &batch, "g.vm"])).expect(0);
    returned();
    same("/root/sftp");
    let shell = format!("ssh -F {config}");
    user(&host, "rsync", &["-a", "-e", &shell, &here, "g.vm:rsync"]).expect(0);
    same("/root/rsync");
    user(&host, "rsync", &["-a", "-e", &shell, "g.vm:rsync", &back_path]).expect(0);
    returned();
    // git, both ways.
    let repository = host.dir.join("repository").display().to_string();
    let git = |args: &[&str]| {
        let mut command = host.command("git", args);
        command.env("HOME", host.dir.join("home")).env("GIT_SSH_COMMAND", &shell);
        for (name, value) in [("AUTHOR", "t"), ("COMMITTER", "t")] {
            command.env(format!("GIT_{name}_NAME"), value).env(format!("GIT_{name}_EMAIL"), value);
        }
        Outcome::of(command.stdin(Stdio::null()).output().unwrap()).expect(0)
    };
    ssh(&[
        "g.vm",
        "ln -s git /usr/bin/git-receive-pack; ln -s git /usr/bin/git-upload-pack; \
           git init -q --bare r.git",
    ])
    .expect(0);
    git(&["init", "-q", "-b", "m", &repository]);
    fs::write(Path::new(&repository).join("f"), &data).unwrap();
    git(&["-C", &repository, "add", "f"]);
    git(&["-C", &repository, "commit", "-qm", "one"]);
    git(&["-C", &repository, "push", "-q", "g.vm:r.git", "m"]);
    let clone = host.dir.join("clone").display().to_string();
    git(&["clone", "-q", "-b", "m", "g.vm:r.git", &clone]);
    assert!(fs::read(Path::new(&clone).join("f")).unwrap() == data);
}

#[test]
fn a_vm_made_anew_is_known_and_one_without_network_is_reached() {
    let host = new_host!();
    let config = home(&host);
    let name =
        || user(&host, "ssh", &client(&config, &["g.vm", "cat /proc/sys/kernel/random/boot_id"]));
    let mut boots = vec![];
    for _ in 0..2 {
        host.banger(&["vm", "run", "-d", "--name", "g"]).ok();
        let told = name().expect(0);
        assert_eq!(told.stderr, "", "no warning, no question");
        boots.push(told.stdout);
        host.banger(&["vm", "delete", "g"]).ok();
    }
    assert_ne!(boots[0], boots[1]);
    name().expect(255);
    host.banger(&["vm", "run", "-d", "--name", "g"]).ok();
    host.inside("ip", &["link", "set", "br-test", "down"]).ok();
    let told = name().expect(0);
    assert_eq!((told.stdout.lines().count(), told.stderr.as_str()), (1, ""));
}
