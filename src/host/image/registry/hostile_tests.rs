//! Pulls from a registry that breaks off, lies and forgets: what ends in the cache is right, or is
//! not there, and what came once is not asked for again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::stage::{Asked, Fault, Stage, sha};
use super::{Cache, Puller};
use crate::host::image::LocalImages;
use crate::model::{Code, Digest, ImageLimits, OpId, RegistrySettings, Size, chain};
use crate::ports::{Fetched, HostError, ImageHost, ImageRecipe, PullSink};

const LIMIT: Duration = Duration::from_secs(60);
/// What is on its way when a connection breaks does not count as lost.
const ON_ITS_WAY: usize = 64 << 10;

struct Rig {
    stage: Stage,
    dir: tempfile::TempDir,
    settings: RegistrySettings,
    /// On a busy machine every answer may be late.
    silence: Duration,
}

impl Rig {
    async fn new(sizes: &[usize]) -> Self {
        Self::on(Stage::new(sizes).await)
    }

    fn on(stage: Stage) -> Self {
        let plain_http = vec![stage.image.registry().to_owned()];
        // Other files than this one's owner has.
        let dir = tempfile::tempdir().unwrap();
        let auth = dir.path().join("auth.json");
        std::fs::write(&auth, "{}").unwrap();
        let settings =
            RegistrySettings { plain_http, auth_file: Some(auth), ..RegistrySettings::default() };
        Self { stage, dir, settings, silence: Duration::from_secs(20) }
    }

    /// As a daemon that has just come up.
    fn puller(&self) -> Puller {
        let cache = Cache::new(self.dir.path()).unwrap();
        let mut puller = Puller::new(cache, self.settings.clone(), ImageLimits::default());
        puller.patience.first_pause = Duration::from_millis(1);
        puller.patience.silence = self.silence;
        puller
    }

    async fn pull(&self) -> Result<Fetched, HostError> {
        self.pull_with(&self.puller(), &CancellationToken::new()).await
    }

    async fn pull_with(
        &self,
        puller: &Puller,
        cancel: &CancellationToken,
    ) -> Result<Fetched, HostError> {
        let sink = silent();
        let pull = puller.pull(&self.stage.image, None, &sink, cancel);
        let pulled = tokio::time::timeout(LIMIT, pull).await.expect("a pull without an end");
        self.whole_blobs();
        pulled
    }

    fn files(&self, below: &str) -> Vec<PathBuf> {
        let dir = std::fs::read_dir(self.dir.path().join("blobs").join(below)).unwrap();
        dir.map(|entry| entry.unwrap().path()).collect()
    }

    /// Each is what its name says.
    fn whole_blobs(&self) -> BTreeSet<Digest> {
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let check = |path: PathBuf| {
            let found = sha(&std::fs::read(&path).unwrap());
            assert_eq!(found, name(&path), "an unverified blob in the cache");
            found
        };
        self.files("sha256").into_iter().map(check).collect()
    }

    fn has_all(&self) -> bool {
        let whole = self.whole_blobs();
        whole.contains(&self.stage.manifest)
            && self.stage.layers.iter().all(|layer| whole.contains(&sha(layer)))
    }

    fn size(&self) -> usize {
        self.stage.layers.iter().map(Vec::len).sum()
    }
}

fn silent() -> PullSink {
    PullSink { progress: Arc::new(|_| {}), transfer: Arc::new(|_| {}) }
}

/// The first request that fits is treated so; all others well.
fn once(fault: Fault, fits: impl Fn(&Asked) -> bool + Send + Sync) -> impl Fn(&Asked) -> Fault {
    let done = std::sync::atomic::AtomicBool::new(false);
    move |asked| {
        let first = fits(asked) && !done.swap(true, std::sync::atomic::Ordering::SeqCst);
        if first { fault } else { Fault::None }
    }
}

#[tokio::test]
async fn a_whole_image_comes_and_is_asked_for_once() {
    let rig = Rig::new(&[100_000, 1, 70_000]).await;
    let fetched = rig.pull().await.unwrap();
    let Fetched { root, manifest } = fetched;
    assert_eq!((root, manifest), (rig.stage.manifest, Some(rig.stage.manifest)));
    assert!(rig.has_all());
    let requests = rig.stage.requests();
    assert_eq!(rig.pull().await.unwrap(), fetched);
    assert_eq!(rig.stage.requests(), requests + 1, "its tag alone is looked up again");
    let (puller, sink, cancel) = (rig.puller(), silent(), CancellationToken::new());
    let known = puller.pull(&rig.stage.image, Some(root), &sink, &cancel);
    assert_eq!(known.await.unwrap(), Fetched { root, manifest: None });
    assert_eq!(rig.files("partial").len(), 0);
}

/// What a single answer may be, and that a pull bears each.
#[tokio::test(flavor = "multi_thread")]
async fn every_single_fault_is_borne() {
    let faults = [
        Fault::Cut(0),
        Fault::Cut(40_000),
        Fault::Stall(40_000),
        Fault::Corrupt(3),
        Fault::Corrupt(90_000),
        Fault::Whole,
        Fault::Unmeasured,
        Fault::Longer(5000),
        Fault::Shorter(1),
        Fault::Shorter(99_999),
        Fault::Shifted(10),
        Fault::Shifted(-10),
        Fault::Nowhere,
        Fault::Larger,
        Fault::Unsatisfiable,
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(429),
        Fault::Status(408),
        Fault::Later(503, 0),
        Fault::Hangup,
        Fault::Garbage,
        Fault::Redirect,
    ];
    for fault in faults {
        for of in ["the whole", "the rest", "the manifest"] {
            let mut rig = Rig::new(&[100_000, 2_000]).await;
            if matches!(fault, Fault::Stall(_)) {
                rig.silence = Duration::from_millis(300);
            }
            let fits = move |asked: &Asked| match of {
                "the whole" => asked.is_blob() && asked.offset == 0,
                "the rest" => asked.offset > 0,
                _ => !asked.is_blob(),
            };
            let first = once(Fault::Cut(50_000), |asked| asked.is_blob() && asked.offset == 0);
            let then = once(fault, fits);
            rig.stage.plan(move |asked| match of {
                // There is a rest after a break alone.
                "the rest" => match first(asked) {
                    Fault::None => then(asked),
                    cut => cut,
                },
                _ => then(asked),
            });
            let pulled = rig.pull().await;
            assert!(pulled.is_ok() && rig.has_all(), "{fault:?} of {of}: {pulled:?}");
        }
    }
}

/// Everything at once, by chance; each seed is another network.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_chance_brings_the_cache_is_right() {
    for seed in 1..=24_u64 {
        let rig = Rig::new(&[300_000, 5_000, 120_000, 64]).await;
        rig.stage.plan(move |asked| {
            let mut dice = (seed << 32 | asked.number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            dice ^= dice >> 29;
            let at = usize::try_from(dice >> 40).unwrap() % 100_000;
            match dice % 16 {
                0..5 => Fault::Cut(at),
                5 => Fault::Corrupt(at),
                6 => Fault::Whole,
                7 => Fault::Longer(at),
                8 => Fault::Shorter(at),
                9 => Fault::Shifted(i64::try_from(at).unwrap() - 50_000),
                10 => Fault::Status(503),
                11 => Fault::Garbage,
                12 => Fault::Unsatisfiable,
                13 => Fault::Hangup,
                _ => Fault::None,
            }
        });
        // Who gives up in the end is asked again, as by another daemon.
        let mut tries = 0;
        while let Err(error) = rig.pull().await {
            assert!(
                !error.hints.is_empty() || error.code == Code::Corrupt,
                "seed {seed}: {error:?}"
            );
            tries += 1;
            assert!(tries < 60, "seed {seed}: {error:?}");
        }
        assert!(rig.has_all(), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_break_is_not_asked_for_again() {
    let rig = Rig::new(&[2_000_000]).await;
    rig.stage.plan(|asked| if asked.is_blob() { Fault::Cut(150_000) } else { Fault::None });
    rig.pull().await.unwrap();
    assert!(rig.has_all());
    let (served, size) = (rig.stage.served(), rig.size());
    assert!(served < size + 2_000, "{served} bytes for {size}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_was_dropped_is_gone_on_with_and_one_that_was_cancelled_is_not() {
    for cancelled in [false, true] {
        let rig = Rig::new(&[1_000_000, 30_000]).await;
        rig.stage.plan(|asked| match (asked.is_blob(), asked.offset) {
            (true, 0) => Fault::Stall(600_000),
            _ => Fault::None,
        });
        let (puller, cancel) = (rig.puller(), CancellationToken::new());
        {
            let pull = rig.pull_with(&puller, &cancel);
            tokio::pin!(pull);
            let partly = async {
                let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.len());
                let begun = |files: &[PathBuf]| files.iter().any(|path| size(path) >= 600_000);
                while !begun(&rig.files("partial")) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                pulled = &mut pull => panic!("it came to its end: {pulled:?}"),
                () = partly => {}
            }
            if cancelled {
                cancel.cancel();
                assert_eq!(pull.await.unwrap_err().code, Code::Cancelled);
                assert_eq!(rig.files("partial").len(), 0);
            }
        }
        let before = rig.stage.served();
        rig.stage.plan(|_| Fault::None);
        rig.pull().await.unwrap();
        assert!(rig.has_all());
        let again = rig.stage.served() - before;
        match cancelled {
            false => assert!(again < 400_000 + ON_ITS_WAY, "{again} bytes came again"),
            true => assert!(again >= 1_000_000, "{again} bytes"),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_had_ends_it_at_once_with_a_way_out() {
    for (fault, code, word) in [
        (Fault::Status(403), Code::Denied, "log in"),
        (Fault::Status(404), Code::NotFound, "this name"),
        (Fault::Status(400), Code::Refused, "400"),
        (Fault::Later(429, 7200), Code::Host, "120 min"),
        (Fault::Loop, Code::Refused, "again and again"),
    ] {
        let rig = Rig::new(&[10]).await;
        rig.stage.plan(move |_| fault);
        let error = rig.pull().await.unwrap_err();
        let said = format!("{} {:?}", chain(&error), error.hints);
        assert!(error.code == code && said.contains(word), "{fault:?}: {said}");
        let requests = rig.stage.requests();
        assert!(requests == 1 || fault == Fault::Loop, "{fault:?}: {requests} requests");
    }
    let rig = Rig::new(&[10]).await;
    rig.stage.plan(|asked| if asked.is_blob() { Fault::Corrupt(0) } else { Fault::None });
    let error = rig.pull().await.unwrap_err();
    assert!(error.code == Code::Corrupt && chain(&error).contains("is not sha256:"), "{error:?}");
    assert_eq!(rig.files("sha256").len(), 1);
    // Nobody is there.
    let mut rig = Rig::new(&[10]).await;
    rig.settings.tries = 3;
    rig.stage.image = "127.0.0.1:1/a/b:1".parse().unwrap();
    rig.settings.plain_http = vec!["127.0.0.1:1".to_owned()];
    let error = rig.pull().await.unwrap_err();
    assert!(error.code == Code::Host && error.hints[0].contains("3 tries"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_tls_is_dialled_only_if_it_was_named() {
    let mut rig = Rig::new(&[10]).await;
    rig.settings.plain_http.clear();
    rig.settings.tries = 2;
    let error = rig.pull().await.unwrap_err();
    assert!(error.hints.iter().any(|hint| hint.contains("plain_http")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_one_time_no_more_comes_than_may() {
    let mut rig = Rig::new(&[50_000; 12]).await;
    // The same twelve times would be one blob.
    rig.settings.parallel = 3;
    rig.pull().await.unwrap();
    let most = rig.stage.seen.lock().unwrap().most_open;
    assert!((2..=4).contains(&most), "{most} at one time");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_of_one_blob_fetch_it_once() {
    let rig = Rig::new(&[400_000, 90_000]).await;
    let (puller, cancel) = (rig.puller(), CancellationToken::new());
    let pulls = (0..6).map(|_| rig.pull_with(&puller, &cancel));
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }
    let blobs = rig.stage.seen.lock().unwrap().requests.iter().filter(|one| one.is_blob()).count();
    assert_eq!(blobs, 3);
}

#[tokio::test]
async fn who_needs_a_token_gets_one_and_shows_it_to_the_registry_alone() {
    let rig = Rig::on(Stage::with_pass(&[1000, 2000], Some("let-me-in")).await);
    let auth = r#"{"auths": {"REGISTRY": {"auth": "bWU6cHc="}}}"#;
    let auth = auth.replace("REGISTRY", rig.stage.image.registry());
    std::fs::write(rig.dir.path().join("auth.json"), auth).unwrap();
    rig.pull().await.unwrap();
    let seen = rig.stage.seen.lock().unwrap();
    let (tokens, others): (Vec<_>, Vec<_>) =
        seen.requests.iter().partition(|one| one.path.starts_with("/token"));
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].authorization.as_deref(), Some("Basic bWU6cHc="));
    assert!(tokens[0].path.contains("scope=repository%3Ateam%2Fapp%3Apull"), "{}", tokens[0].path);
    let shown: BTreeSet<_> = others.iter().map(|one| one.authorization.clone()).collect();
    assert_eq!(shown, BTreeSet::from([None, Some("Bearer let-me-in".to_owned())]));
}

#[tokio::test]
async fn what_takes_more_than_an_image_may_is_refused_before_it_comes() {
    let rig = Rig::new(&[5000, 5000]).await;
    let limits = ImageLimits { size: Size::from_bytes(9000), ..ImageLimits::default() };
    let cache = Cache::new(rig.dir.path()).unwrap();
    let puller = Puller::new(cache, rig.settings.clone(), limits);
    let error = rig.pull_with(&puller, &CancellationToken::new()).await.unwrap_err();
    assert!(error.code == Code::Invalid && chain(&error).contains("image_size"), "{error:?}");
    assert_eq!(rig.stage.served(), 0);
}

#[tokio::test]
async fn a_document_without_end_is_not_read_to_its_end() {
    let rig = Rig::new(&[10]).await;
    rig.stage.plan(|_| Fault::Longer(6 << 20));
    let error = rig.pull().await.unwrap_err();
    assert!(error.code == Code::Refused && chain(&error).contains("larger than"), "{error:?}");
}

/// A program, so that it can be an image.
fn root() -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    let mut header = tar::Header::new_gnu();
    header.set_size(1 << 16);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/sh", &super::stage::noise(5, 1 << 16)[..]).unwrap();
    tar.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_was_damaged_in_the_cache_comes_again() {
    let rig = Rig::on(Stage::of(vec![root()], None).await);
    let images = LocalImages::new(rig.dir.path(), rig.dir.path().join("agent")).unwrap();
    let images = images.with_registries(rig.settings.clone());
    let (op, cancel, image) = (OpId([0; 16]), CancellationToken::new(), &rig.stage.image);
    let fetched = images.fetch_image(op, image, None, silent(), &cancel).await.unwrap();
    let (root, manifest) = (fetched.root, fetched.manifest.unwrap());
    let recipe = ImageRecipe::Fetched { image: image.clone(), root, manifest };
    let make = || images.make_image(op, &recipe, Arc::new(|_| {}), &cancel);
    let made = make().await.unwrap();
    assert_eq!(made.source, image.pinned(root).to_string());
    let blob = rig.dir.path().join("blobs/sha256").join(sha(&rig.stage.layers[0]).to_string());
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[40_000] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    assert_eq!(make().await.unwrap_err().code, Code::Corrupt);
    assert!(!blob.exists());
    let before = rig.stage.served();
    images.fetch_image(op, image, None, silent(), &cancel).await.unwrap();
    assert_eq!(rig.stage.served() - before, rig.size());
    assert_eq!(make().await.unwrap(), made);
}
