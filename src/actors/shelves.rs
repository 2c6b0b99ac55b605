//! What is answered about images and kernels: which there are, how they are run, what they take.

use super::answers::parts;
use super::house::House;
use super::image_names;
use super::session::{Refusal, Response};
use crate::model::{Code, Failure, OpId, prune_images};
use crate::wire::reply::{Answer, ImageNameInfo, ImageUsageInfo};

pub(super) fn images(house: &House, only: Option<&str>) -> Result<Response, Refusal> {
    let vms = house.store.vms().map_err(|error| Failure::from(&error))?;
    let mut rows = house.store.images().map_err(|error| Failure::from(&error))?;
    // What is no name may be the start of a digest.
    let called = only.and_then(|text| image_names::resolve(&house.store, text).ok());
    rows.retain(|image| {
        called.as_ref() == Some(&image.name)
            || only.is_none_or(|text| matches(text, image.name.as_str(), &image.digest))
    });
    if let (Some(name), true) = (only, rows.is_empty()) {
        return Err(no_image(name).into());
    }
    let users = |digest| {
        let uses = vms.iter().filter(|vm| vm.image == digest);
        uses.map(|vm| vm.spec.name.to_string()).collect::<Vec<_>>()
    };
    let rows: Vec<_> = rows.iter().map(|image| (image, users(image.digest)).into()).collect();
    Ok(parts(rows, Answer::Images))
}

pub(super) fn kernels(house: &House, only: Option<&str>) -> Result<Response, Refusal> {
    let vms = house.store.vms().map_err(|error| Failure::from(&error))?;
    let mut rows = house.store.kernels().map_err(|error| Failure::from(&error))?;
    rows.retain(|row| only.is_none_or(|name| matches(name, row.name.as_str(), &row.digest)));
    if let (Some(name), true) = (only, rows.is_empty()) {
        return Err(Failure::new(Code::NotFound, format!("no kernel is named {name:?}"))
            .hint("`banger kernel list` shows what there is")
            .into());
    }
    let users = |digest| {
        let uses = vms.iter().filter(|vm| vm.kernel == digest);
        uses.map(|vm| vm.spec.name.to_string()).collect::<Vec<_>>()
    };
    let rows: Vec<_> = rows.iter().map(|kernel| (kernel, users(kernel.digest)).into()).collect();
    Ok(parts(rows, Answer::Kernels))
}

/// By name, or by the start of the digest that lists show.
fn matches(asked: &str, name: &str, digest: &crate::model::Digest) -> bool {
    name == asked || (asked.len() >= 12 && digest.to_string().starts_with(asked))
}

pub(super) fn image_config(house: &House, name: &str) -> Result<Response, Refusal> {
    let images = house.store.images().map_err(|error| Failure::from(&error))?;
    let called = image_names::resolve(&house.store, name).ok();
    let image = images.iter().find(|image| {
        called.as_ref() == Some(&image.name) || matches(name, image.name.as_str(), &image.digest)
    });
    let image = image.ok_or_else(|| no_image(name))?;
    let config = house.store.image_config(image.name.as_str());
    let config = config.map_err(|error| Failure::from(&error))?;
    Ok(Response::Now(Answer::ImageConfig(config.map(|config| Box::new(config.into())))))
}

fn no_image(name: &str) -> Failure {
    Failure::new(Code::NotFound, format!("no image is named {name:?}"))
        .hint("`banger image list` shows what there is")
}

/// Contents in the order of their first names.
pub(super) async fn usage(house: &House, op_id: OpId) -> Result<Response, Refusal> {
    let failed = |error: &crate::store::StoreError| Failure::from(error);
    let images = house.store.images().map_err(|error| failed(&error))?;
    let vms = house.store.vms().map_err(|error| failed(&error))?;
    let files = house.ports.images.usage(op_id).await.map_err(|error| Failure::from(&error))?;
    let warm = house.ports.warm.usage(op_id).await.map_err(|error| Failure::from(&error))?;
    let mut rows: Vec<ImageUsageInfo> = vec![];
    for verdict in prune_images(images, &vms, &house.config.defaults.image) {
        let (image, kept_because) = (verdict.image, verdict.kept);
        let name = ImageNameInfo { name: image.name.to_string(), kept_because };
        let digest = image.digest.to_string();
        if let Some(row) = rows.iter_mut().find(|row| row.digest == digest) {
            row.names.push(name);
            continue;
        }
        let users = vms.iter().filter(|vm| vm.image == image.digest);
        let file = files.get(&image.digest).copied().unwrap_or_default();
        let (snapshots, snapshot_bytes) = warm.get(&image.digest).copied().unwrap_or_default();
        rows.push(ImageUsageInfo {
            digest,
            names: vec![name],
            used_by: users.map(|vm| vm.spec.name.to_string()).collect(),
            file_bytes: file.file,
            seed_bytes: file.seeds,
            snapshots,
            snapshot_bytes,
        });
    }
    Ok(parts(rows, Answer::ImageUsage))
}
