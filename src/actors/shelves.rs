//! What is answered about images: which there are, how they are run, what they take.

use super::answers::parts;
use super::house::House;
use super::image_names;
use super::session::{Refusal, Response};
use crate::model::{Code, DiskBackend, Failure, ImageRecord, OpId, VmState, prune};
use crate::ports::{CachedBlob, ImageRecipe, RootSource};
use crate::wire::reply::{Answer, BlobInfo, ImageNameInfo, ImageUsageInfo};

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

/// By name, or by the start of the digest that lists show.
pub(super) fn matches(asked: &str, name: &str, digest: &crate::model::Digest) -> bool {
    name == asked || (asked.len() >= 12 && digest.to_string().starts_with(asked))
}

pub(super) fn image_config(house: &House, name: &str) -> Result<Response, Refusal> {
    let image = find(house, name)?;
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
    for verdict in prune(images, &vms, &house.config.defaults.image) {
        let (image, kept_because) = (verdict.row, verdict.kept);
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

pub(super) async fn blobs(house: &House, op_id: OpId) -> Result<Response, Refusal> {
    let blobs = house.ports.images.blobs(op_id).await.map_err(|error| Failure::from(&error))?;
    let info = |blob: CachedBlob| BlobInfo {
        digest: blob.digest.to_string(),
        bytes: blob.bytes,
        whole: blob.whole,
        used_unix_ms: blob.used_unix_ms,
    };
    Ok(parts(blobs.into_iter().map(info).collect(), Answer::Blobs))
}

pub(super) fn find(house: &House, name: &str) -> Result<ImageRecord, Failure> {
    let images = house.store.images().map_err(|error| Failure::from(&error))?;
    let called = image_names::resolve(&house.store, name).ok();
    let image = images.into_iter().find(|image| {
        called.as_ref() == Some(&image.name) || matches(name, image.name.as_str(), &image.digest)
    });
    image.ok_or_else(|| no_image(name))
}

/// What an image is made of that is to be as the VM's root is now.
pub(super) async fn root_of(house: &House, op_id: OpId, vm: &str) -> Result<ImageRecipe, Refusal> {
    let view = house.find(op_id, vm).await?.view;
    let (record, name) = (&view.record, view.record.spec.name.to_string());
    let refused = |why: &str, way_out: String| {
        Err(Failure::new(Code::Refused, format!("commit {name}: {why}")).hint(way_out).into())
    };
    match record.state {
        VmState::Stopped if view.busy.is_none() => {}
        VmState::Created => {
            let image = &record.spec.image;
            let way_out = format!("one more name for its image: banger image tag {image} NEW");
            return refused("it never ran, and is as its image", way_out);
        }
        VmState::Suspended => {
            let way_out = format!("banger vm resume {name} && banger vm stop {name}");
            return refused("it is suspended, and its disks are as its memory left them", way_out);
        }
        state => {
            return refused(&format!("it is {state}"), format!("banger vm stop {name}"));
        }
    }
    let config = house.store.image_use(record.id).map_err(|error| Failure::from(&error))?;
    let paths = house.ports.disk.paths(record.id);
    let root = match record.spec.root.backend {
        DiskBackend::Reflink => RootSource::Clone(paths.root()),
        DiskBackend::DmSnapshot => RootSource::Changes(paths.changes()),
        DiskBackend::Overlay => RootSource::Overlay(paths.overlay()),
    };
    let config = config.map(|image| Box::new(image.config));
    Ok(ImageRecipe::Root { vm: name, base: record.image, root, config })
}
