//! A bundle from a URL: one operation of the images' actor, however many wait for it.
//!
//! ```text
//! intent ──> fetch (one file into the cache) ──> make-files, row ──> outcome
//! ```
//!
//! To a download the end of the daemon is what a crash is, as to a pull.

use tokio_util::sync::CancellationToken;

use super::images::{Kind, Work};
use super::pulls::{self, Ended};
use super::solo::{Done, Solo};
use crate::model::{Code, Failure, OpKind, Outcome};
use crate::ports::{Download, ImageRecipe, KernelRecipe};

pub(super) async fn download(
    work: &Work,
    of: OpKind,
    kind: Kind,
    download: &Download,
    cancel: &CancellationToken,
    done: &Done,
) {
    let Some(mut op) = work.begin(of, done).await else { return };
    match bring(work, kind, download, cancel, &mut op).await {
        Ok(()) => op.end(Outcome::Done, None, done).await,
        Err((step, failure)) => {
            let (step, cause) = (step.to_owned(), failure.message.clone());
            op.end(Outcome::RolledBack { step, cause }, Some(failure), done).await;
        }
    }
}

async fn bring(
    work: &Work,
    kind: Kind,
    download: &Download,
    cancel: &CancellationToken,
    op: &mut Solo,
) -> Ended<()> {
    let fetch = || async {
        let images = &work.deps.images;
        let fetched = images.fetch_file(work.op_id, download, pulls::sink(work), cancel).await;
        fetched.map_err(|error| Failure::from(&error))
    };
    let fetching = async {
        fetch().await?;
        Ok(format!("sha256:{}", download.digest))
    };
    op.step(pulls::FETCH, fetching).await.map_err(|failure| (pulls::FETCH, failure))?;
    let making = async {
        match make(work, kind, download, cancel).await {
            // If it was damaged while it lay in the cache, it is gone from there now.
            Err(failure) if matches!(failure.code, Code::Corrupt | Code::NotFound) => {
                fetch().await?;
                make(work, kind, download, cancel).await
            }
            made => made,
        }
    };
    let made = op.step(pulls::MAKE_FILES, making).await;
    made.map(drop).map_err(|failure| (pulls::MAKE_FILES, failure))
}

async fn make(
    work: &Work,
    kind: Kind,
    download: &Download,
    cancel: &CancellationToken,
) -> Result<String, Failure> {
    let (blob, source) = (download.digest, download.shown().to_owned());
    let made = match kind {
        Kind::Image => work.make_image(&ImageRecipe::Bundle { blob, source }, cancel).await,
        Kind::Kernel => work.make_kernel(&KernelRecipe::Bundle { blob, source }, cancel).await,
    };
    made.map(|digest| digest.to_string())
}
