//! One file by its URL, from a server that breaks off, lies and forgets.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::stage::{Fault, Stage, sha};
use super::{Cache, Puller};
use crate::model::{Code, ImageLimits, RegistrySettings, Size, chain};
use crate::ports::{Download, HostError, PullSink};

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 300_000;

struct Rig {
    stage: Stage,
    dir: tempfile::TempDir,
    limits: ImageLimits,
    told: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let limits = ImageLimits::default();
        Self { stage: Stage::new(&[SIZE]).await, dir, limits, told: Arc::default() }
    }

    fn download(&self) -> Download {
        let (host, digest) = (self.stage.image.registry(), sha(&self.stage.layers[0]));
        let url = format!("http://{host}/v2/team/app/blobs/sha256:{digest}");
        Download { url, digest, size: None }
    }

    /// As a daemon that has just come up.
    fn puller(&self) -> Puller {
        let cache = Cache::new(self.dir.path()).unwrap();
        let plain_http = vec![self.stage.image.registry().to_owned()];
        let settings = RegistrySettings { plain_http, ..RegistrySettings::default() };
        let mut puller = Puller::new(cache, settings, self.limits);
        puller.patience.first_pause = Duration::from_millis(1);
        puller
    }

    async fn bring(&self, download: &Download) -> Result<(), HostError> {
        let cancel = CancellationToken::new();
        let told = Arc::clone(&self.told);
        let progress = Arc::new(move |text| told.lock().unwrap().push(text));
        let sink = PullSink { progress, transfer: Arc::new(|_| {}) };
        let puller = self.puller();
        let bring = puller.download(download, &sink, &cancel);
        tokio::time::timeout(LIMIT, bring).await.expect("a download without an end")
    }

    fn files(&self, below: &str) -> Vec<PathBuf> {
        let dir = std::fs::read_dir(self.dir.path().join("blobs").join(below)).unwrap();
        dir.map(|entry| entry.unwrap().path()).collect()
    }

    fn has_it(&self) -> bool {
        let whole = self.files("sha256");
        whole.len() == 1 && std::fs::read(&whole[0]).unwrap() == self.stage.layers[0]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_chance_brings_what_came_is_right_and_comes_once() {
    for seed in 1..=16_u64 {
        let rig = Rig::new().await;
        rig.stage.plan(move |asked| {
            let mut dice = (seed << 32 | asked.number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            dice ^= dice >> 29;
            let at = usize::try_from(dice >> 40).unwrap() % SIZE;
            match dice % 12 {
                0..4 => Fault::Cut(at),
                4 => Fault::Corrupt(at),
                5 => Fault::Whole,
                6 => Fault::Status(503),
                7 => Fault::Hangup,
                8 => Fault::Unsatisfiable,
                _ => Fault::None,
            }
        });
        // The size is known from a catalog, or is asked of the server.
        let size = (seed % 2 == 0).then_some(SIZE as u64);
        let wanted = Download { size, ..rig.download() };
        let mut tries = 0;
        while let Err(error) = rig.bring(&wanted).await {
            tries += 1;
            assert!(tries < 20, "seed {seed}: {}", chain(&error));
        }
        assert!(rig.has_it() && rig.files("partial").is_empty(), "seed {seed}");
        let requests = rig.stage.requests();
        rig.bring(&wanted).await.unwrap();
        assert_eq!(rig.stage.requests(), requests, "what is here is not asked for");
    }
}

#[tokio::test]
async fn a_part_that_another_daemon_left_is_gone_on_with() {
    let rig = Rig::new().await;
    let partial = rig.puller(); // makes its directories
    drop(partial);
    let name = rig.download().digest.to_string();
    let half = &rig.stage.layers[0][..SIZE / 2];
    std::fs::write(rig.dir.path().join("blobs/partial").join(name), half).unwrap();
    let download = Download { size: Some(SIZE as u64), ..rig.download() };
    rig.bring(&download).await.unwrap();
    assert!(rig.has_it());
    assert!(rig.stage.served() <= SIZE / 2, "{} bytes served", rig.stage.served());
}

#[tokio::test]
async fn what_may_not_be_is_told_at_once() {
    let mut rig = Rig::new().await;
    let good = rig.download();
    let other = Download { url: good.url.replace("team", "nobody"), ..good.clone() };
    let plain = Download { url: "http://127.0.0.1:9/x".to_owned(), ..good.clone() };
    let short = Download { size: Some(SIZE as u64 - 1), ..good.clone() };
    for (wanted, code, why) in [
        (other, Code::NotFound, "the server answers 404"),
        (plain, Code::Refused, "without TLS"),
        (short, Code::Corrupt, "given up"),
    ] {
        let error = rig.bring(&wanted).await.unwrap_err();
        let said = format!("{} {:?}", chain(&error), error.hints);
        assert!(error.code == code && said.contains(why), "{said}: {}", error.code);
    }
    rig.limits.size = Size::from_bytes(1000);
    let error = rig.bring(&good).await.unwrap_err();
    assert!(chain(&error).contains("the limit `image_size`"), "{error:?}");
    rig.limits = ImageLimits::default();
    rig.stage.plan(|_| Fault::Unmeasured);
    let error = rig.bring(&good).await.unwrap_err();
    assert!(chain(&error).contains("does not say how large"), "{error:?}");
    assert_eq!(rig.files("sha256").len(), 0);
    // What may be a secret is in no message.
    let secret = Download { url: format!("{}?token=secret", good.url), size: Some(1), ..good };
    rig.stage.plan(|_| Fault::Status(403));
    let error = rig.bring(&secret).await.unwrap_err();
    assert!(!format!("{error:?} {:?}", rig.told).contains("secret"), "{error:?}");
}

#[tokio::test]
async fn a_cancel_takes_its_part_away() {
    let rig = Rig::new().await;
    rig.stage.plan(|asked| match asked.number {
        0 => Fault::None,
        _ => Fault::Stall(100_000),
    });
    let (puller, cancel, wanted) = (rig.puller(), CancellationToken::new(), rig.download());
    let sink = PullSink { progress: Arc::new(|_| {}), transfer: Arc::new(|_| {}) };
    let bring = puller.download(&wanted, &sink, &cancel);
    let stop = async {
        let is_there =
            || rig.files("partial").iter().any(|part| part.metadata().unwrap().len() > 0);
        while !is_there() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cancel.cancel();
    };
    let (brought, ()) = tokio::join!(bring, stop);
    assert_eq!(brought.unwrap_err().code, Code::Cancelled);
    assert!(rig.files("partial").is_empty());
}
