//! Images that came from registries: what a reference stands for may change there.

use super::{Store, StoreError};
use crate::model::{ImageConfig, ImageRecord, Name};

impl Store {
    /// Gives an image the name of its reference, in place of what that stood for before. What a VM
    /// boots from keeps a name: that of its source, which never means anything else.
    pub async fn put_pulled(
        &self,
        record: ImageRecord,
        config: Option<ImageConfig>,
    ) -> Result<ImageRecord, StoreError> {
        self.write(move |txn, dbs| {
            let name = record.name.to_string();
            let known = dbs.images.get(txn, name.as_bytes())?;
            if let Some(known) = known.filter(|known| known.digest != record.digest) {
                let in_use = dbs.vms.all(txn)?.iter().any(|vm| vm.image == known.digest);
                if let (true, Ok(kept)) = (in_use, Name::image(&known.source)) {
                    let key = kept.to_string();
                    dbs.images.put(txn, key.as_bytes(), ImageRecord { name: kept, ..known })?;
                    if let Some(config) = dbs.image_configs.get(txn, name.as_bytes())? {
                        dbs.image_configs.put(txn, key.as_bytes(), config)?;
                    }
                    if let Some(kernel) = dbs.image_kernels.get(txn, name.as_bytes())? {
                        dbs.image_kernels.put(txn, key.as_bytes(), kernel)?;
                    }
                }
            }
            dbs.images.put(txn, name.as_bytes(), record.clone())?;
            dbs.image_kernels.delete(txn, name.as_bytes())?;
            match config {
                Some(config) => dbs.image_configs.put(txn, name.as_bytes(), config)?,
                None => drop(dbs.image_configs.delete(txn, name.as_bytes())?),
            }
            Ok(record)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::reserve_tests::{draft, image, stocked};
    use super::*;

    #[tokio::test]
    async fn an_image_that_vms_boot_from_keeps_a_name_when_its_tag_moves() {
        let (_dir, store) = stocked().await;
        let tag: crate::model::ImageRef = "quay.io/a/b:1".parse().unwrap();
        let version = |content: u8| ImageRecord {
            name: Name::from(&tag),
            source: tag.pinned(crate::model::Digest([content; 32])).to_string(),
            ..image("x", content)
        };
        let config =
            |n: u8| Some(ImageConfig { cmd: vec![n.to_string()], ..ImageConfig::default() });
        let names = || {
            let images = store.images().unwrap().into_iter();
            images.map(|image| (image.name.to_string(), image.digest.0[0])).collect::<Vec<_>>()
        };
        store.put_pulled(version(7), config(7)).await.unwrap();
        store.put_pulled(version(7), config(7)).await.unwrap();
        store.put_pulled(version(8), config(8)).await.unwrap();
        assert_eq!(names(), [("debian".to_owned(), 1), (tag.to_string(), 8)]);
        let mut vm = draft(1, "web");
        vm.spec.image = tag.to_string();
        store.reserve_vm(vm).await.unwrap();
        store.put_pulled(version(9), None).await.unwrap();
        let kept = version(8).source;
        assert_eq!(names()[1..], [(tag.to_string(), 9), (kept.clone(), 8)]);
        assert_eq!(store.image_config(&kept).unwrap(), config(8));
        assert_eq!(store.image_config(&tag.to_string()).unwrap(), None);
        // It is still in use by that name, and the tag is not.
        let error = store.delete_image(Name::image(&kept).unwrap()).await.unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
        store.delete_image(Name::from(&tag)).await.unwrap();
    }
}
