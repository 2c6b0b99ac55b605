//! The pull of a kernel by the name of its package: one operation of the images' actor.
//!
//! ```text
//! intent ──> find (what the host's sources have now) ──> make-files ──> row ──> outcome
//! ```
//!
//! What was found is not fetched if the kernel of this name is made of it. Nothing stays of one that
//! ends before its row: what is downloaded lies in its work directory.

use tokio_util::sync::CancellationToken;

use super::images::Work;
use super::solo::{Done, Solo};
use crate::model::{
    DebianKernel, EventKind, Failure, HOST_IS_X86, KernelFeatures, KernelOffer, KernelRecord,
    OpKind, Outcome, lack_text, lacking_for_some,
};
use crate::ports::{KernelFile, KernelRecipe};

/// Steps; their names are in the journal.
const FIND: &str = "find";
const MAKE_FILES: &str = "make-files";

pub(super) async fn pull(
    work: &Work,
    asked: &DebianKernel,
    cancel: &CancellationToken,
    done: &Done,
) {
    let Some(mut op) = work.begin(OpKind::PullKernel, done).await else { return };
    match run(work, &mut op, asked, cancel).await {
        Ok(outcome) => op.end(outcome, None, done).await,
        Err((step, failure)) => {
            let (step, cause) = (step.to_owned(), failure.message.clone());
            op.end(Outcome::RolledBack { step, cause }, Some(failure), done).await;
        }
    }
}

async fn run(
    work: &Work,
    op: &mut Solo,
    asked: &DebianKernel,
    cancel: &CancellationToken,
) -> Result<Outcome, (&'static str, Failure)> {
    let (images, store) = (&work.deps.images, &work.deps.store);
    let mut found = None;
    let finding = async {
        let offer = images.find_kernel(work.op_id, asked, work.progress(), cancel).await;
        let offer = offer.map_err(|error| Failure::from(&error))?;
        let source = offer.source();
        let known = store.kernel(work.name.as_str()).map_err(|error| Failure::from(&error))?;
        let is_here = known.is_some_and(|known| known.source == source);
        found = Some((offer, is_here));
        Ok(source)
    };
    op.step(FIND, finding).await.map_err(|failure| (FIND, failure))?;
    let offer = match found {
        Some((offer, true)) => return Ok(Outcome::Unchanged(here(&offer))),
        Some((offer, false)) => offer,
        None => return Ok(Outcome::Done),
    };
    let making = async {
        let recipe = KernelRecipe::Debian { offer };
        let made = images.make_kernel(work.op_id, &recipe, work.progress(), cancel).await;
        let (record, features) = work.kernel_record(made.map_err(|error| Failure::from(&error))?);
        let kept = store.put_pulled_kernel(record, features).await;
        kept.map(|record| record.digest.to_string()).map_err(|error| Failure::from(&error))
    };
    op.step(MAKE_FILES, making).await.map_err(|failure| (MAKE_FILES, failure))?;
    Ok(Outcome::Done)
}

impl Work {
    /// What becomes the row of a kernel. Tells what that lacks for some VMs.
    pub(super) fn kernel_record(&self, file: KernelFile) -> (KernelRecord, KernelFeatures) {
        let lacks = lacking_for_some(&file.features, HOST_IS_X86);
        if !lacks.is_empty() {
            let text = format!("{} {}", self.name, lack_text(&lacks));
            self.deps.events.publish(Some(self.op_id), None, EventKind::Note { text });
        }
        let record = KernelRecord {
            name: self.name.clone(),
            digest: file.digest,
            version: file.version,
            distro: file.distro,
            arch: file.arch,
            modules: file.modules,
            size: file.size,
            source: file.source,
            created_unix_ms: self.deps.clock.unix_ms(),
        };
        (record, file.features)
    }
}

fn here(offer: &KernelOffer) -> String {
    format!("{} {} is here already", offer.package, offer.version)
}
