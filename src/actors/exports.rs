//! What is handed on: images and kernels, streamed to the client that asks.

use tokio::sync::mpsc;

use super::house::House;
use super::kernels;
use super::session::{Refusal, Response, Session, artefact};
use super::shelves::find;
use crate::model::{Failure, Name};
use crate::ports::Export;
use crate::wire::reply::{Answer, Reply};

/// Pieces that wait for the client.
const WAITING: usize = 4;

pub(super) async fn layout(session: &mut Session<'_>, name: &str) -> Result<Response, Refusal> {
    let image = find(session.house, name)?;
    let config = session.house.store.image_config(image.name.as_str());
    let config = config.map_err(|error| Failure::from(&error))?.unwrap_or_default();
    export(session, &image.name, Export::Layout { image: image.digest, config }).await
}

/// `kernel` is the one that it is to want, in place of the one that is known.
pub(super) async fn image(
    session: &mut Session<'_>,
    name: &str,
    kernel: Option<&str>,
) -> Result<Response, Refusal> {
    let image = find(session.house, name)?;
    let failed = |error: crate::store::StoreError| Failure::from(&error);
    let store = &session.house.store;
    let config = store.image_config(image.name.as_str()).map_err(failed)?;
    let kernel = match kernel {
        Some(kernel) => Some(artefact(kernel)?),
        None => store.image_kernel(image.name.as_str()).map_err(failed)?,
    };
    let what = Export::ImageBundle { image: image.digest, config, kernel };
    export(session, &image.name, what).await
}

pub(super) async fn kernel(session: &mut Session<'_>, name: &str) -> Result<Response, Refusal> {
    let kernel = kernels::find(session.house, name)?;
    let features = session.house.store.kernel_features(kernel.digest);
    let features = features.map_err(|error| Failure::from(&error))?;
    let what = Export::KernelBundle { kernel: kernel.digest, features };
    export(session, &kernel.name, what).await
}

/// As fast as the client reads, and no longer than it does.
async fn export(session: &mut Session<'_>, name: &Name, what: Export) -> Result<Response, Refusal> {
    let house: &House = session.house;
    let (sender, mut pieces) = mpsc::channel(WAITING);
    let to = Box::new(move |piece| sender.blocking_send(piece).is_ok());
    let cancel = session.stop.child_token();
    let _guard = cancel.clone().drop_guard();
    let images = &house.ports.images;
    let mut export = images.export(session.op_id, &what, name, to, &cancel);
    let mut ended = None;
    loop {
        tokio::select! {
            exported = &mut export, if ended.is_none() => ended = Some(exported),
            piece = pieces.recv() => match piece {
                Some(piece) => session.frames.send(&Reply::Bytes(piece)).await?,
                None => break,
            },
        }
    }
    let exported = match ended {
        Some(exported) => exported,
        None => export.await,
    };
    exported.map_err(|error| Failure::from(&error))?;
    Ok(Response::Now(Answer::Nothing))
}
