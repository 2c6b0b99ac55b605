//! One file comes into the cache, by its URL and its digest: as a layer does, whatever the network does.

use tokio_util::sync::CancellationToken;

use super::fetch::{Fetch, Origin, short};
use super::meter::Meter;
use super::pull::Puller;
use super::trouble::{Tries, Trouble};
use super::web::Web;
use crate::host::files::blocking;
use crate::model::{Code, Size, Transfer, chain};
use crate::ports::{Download, HostError, ProgressSink, PullSink};

const WHAT: &str = "download";

impl Puller {
    /// Afterwards the file is in the cache. Parts stay after a failure and after the daemon's end, and
    /// go with a cancel.
    pub(in crate::host::image) async fn download(
        &self,
        download: &Download,
        sink: &PullSink,
        cancel: &CancellationToken,
    ) -> Result<(), HostError> {
        let web = Web::of(&download.url, &self.settings, self.patience).await?;
        let cancelled = || HostError::new(Code::Cancelled, WHAT, web.shown());
        tokio::select! {
            done = self.bring(&web, download, sink) => done,
            () = cancel.cancelled() => {
                self.forget_one(download.digest).await;
                Err(cancelled())
            }
        }
    }

    async fn bring(
        &self,
        web: &Web,
        download: &Download,
        sink: &PullSink,
    ) -> Result<(), HostError> {
        let digest = download.digest;
        let size = match (download.size, self.here(download).await?) {
            (Some(size), _) => size,
            (None, Some(size)) => size,
            (None, None) => self.ask(web, &sink.progress).await?,
        };
        let limit = self.limits.size;
        if size > limit.bytes() {
            let size = Size::from_bytes(size);
            let why = format!("it takes {size}, more than {limit}, the limit `image_size`");
            return Err(HostError::new(Code::Invalid, WHAT, web.shown())
                .because(why)
                .hint("if you trust it, raise the limit in [limits]"));
        }
        (sink.progress)(format!("{}, {}", web.shown(), Size::from_bytes(size)));
        let seen = Transfer {
            blob: short(digest),
            number: 1,
            of: 1,
            bytes: 0,
            size,
            bytes_per_second: 0,
            left_ms: None,
        };
        let fetch = Fetch {
            from: Origin::Web(web),
            cache: &self.cache,
            object: web.shown(),
            what: WHAT,
            digest,
            size,
            patience: self.patience,
            lanes: &self.lanes,
            progress: &sink.progress,
        };
        fetch.run(&mut Meter::new(sink.transfer.clone(), seen)).await
    }

    /// How large it is, if all of it is here.
    async fn here(&self, download: &Download) -> Result<Option<u64>, HostError> {
        let (cache, digest) = (self.cache.clone(), download.digest);
        blocking(WHAT, move || Ok(cache.find(digest))).await
    }

    async fn ask(&self, web: &Web, progress: &ProgressSink) -> Result<u64, HostError> {
        self.patiently(progress, || web.size()).await
    }

    /// Again, as long as it is worth it.
    pub(super) async fn patiently<T, F: Future<Output = Result<T, Trouble>>>(
        &self,
        progress: &ProgressSink,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, HostError> {
        let mut tries = Tries::new(self.patience);
        loop {
            let trouble = match ask().await {
                Ok(found) => return Ok(found),
                Err(trouble) => trouble,
            };
            let (pause, error) = tries.after(trouble)?;
            let why = chain(&error);
            tracing::info!(?pause, %why, "a download is tried again");
            progress(format!("{why}; trying again"));
            tokio::time::sleep(pause).await;
        }
    }
}
