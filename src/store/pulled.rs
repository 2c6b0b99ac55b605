//! What came by the name that it has elsewhere: there that may stand for something else by now.

use super::{Store, StoreError, kernel_features};
use crate::model::{
    ImageConfig, ImageRecord, KernelFeatures, KernelRecord, Name, is_pulled, name_of_source,
};

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

    /// The same of a kernel and the name of a package. A kernel of that name that came in another
    /// way is not replaced.
    pub async fn put_pulled_kernel(
        &self,
        record: KernelRecord,
        features: KernelFeatures,
    ) -> Result<KernelRecord, StoreError> {
        self.write(move |txn, dbs| {
            let name = record.name.to_string();
            let known = dbs.kernels.get(txn, name.as_bytes())?;
            dbs.kernels.put(txn, name.as_bytes(), record.clone())?;
            kernel_features::learn(txn, dbs, record.digest, features)?;
            let Some(known) = known.filter(|known| known.digest != record.digest) else {
                return Ok(record);
            };
            let exists = || StoreError::Exists { what: "kernel", name: name.clone() };
            if !is_pulled(&known.source) {
                return Err(exists());
            }
            if dbs.vms.all(txn)?.iter().any(|vm| vm.kernel == known.digest) {
                let kept = name_of_source(&known.source).ok_or_else(exists)?;
                let key = kept.to_string();
                dbs.kernels.put(txn, key.as_bytes(), KernelRecord { name: kept, ..known })?;
            } else {
                kernel_features::forget(txn, dbs, known.digest)?;
            }
            Ok(record)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::reserve_tests::{draft, image, kernel, stocked};
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

    #[tokio::test]
    async fn a_kernel_that_vms_boot_keeps_a_name_when_a_later_one_comes() {
        let (_dir, store) = stocked().await;
        let pulled = |content: u8| KernelRecord {
            source: format!("debian linux-image-6.1.0-{content}-cloud-amd64 6.1.1-{content}"),
            ..kernel("linux-image-cloud-amd64", content)
        };
        let put = |content| store.put_pulled_kernel(pulled(content), KernelFeatures::default());
        let names = || {
            let kernels = store.kernels().unwrap().into_iter();
            let named = kernels.map(|kernel| (kernel.name.to_string(), kernel.digest.0[0]));
            named.filter(|(name, _)| name.starts_with("linux")).collect::<Vec<_>>()
        };
        let name = "linux-image-cloud-amd64".to_owned();
        for content in [7, 7, 8] {
            put(content).await.unwrap();
        }
        assert_eq!(names(), [(name.clone(), 8)]);
        let mut vm = draft(1, "web");
        vm.spec.kernel.clone_from(&name);
        store.reserve_vm(vm).await.unwrap();
        put(9).await.unwrap();
        let kept = "linux-image-6.1.0-8-cloud-amd64-6.1.1-8".to_owned();
        assert_eq!(names(), [(kept.clone(), 8), (name.clone(), 9)]);
        let error = store.delete_kernel(Name::artefact(&kept).unwrap()).await.unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
        // What somebody imported under a name is not replaced by what a package is.
        let mine = KernelRecord { name: "old".parse().unwrap(), ..pulled(9) };
        let refused = store.put_pulled_kernel(mine, KernelFeatures::default()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Exists { .. }), "{refused:?}");
        assert_eq!(store.kernel("old").unwrap(), Some(kernel("old", 2)), "nothing was written");
    }
}
