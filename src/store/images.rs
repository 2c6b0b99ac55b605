//! Names of images and kernels. Their files are named by digest and several names may share one;
//! a file goes when no name is left for it.

use heed::RwTxn;

use super::image_kernels::KernelWish;
use super::schema::Dbs;
use super::table::{BadValue, Row, Table};
use super::{Store, StoreError, default_kernel, kernel_features};
use crate::model::{
    Digest, ImageRecord, ImageSaid, KernelFeatures, KernelRecord, Name, Size, VmRecord,
};
use crate::wire::codec::{Decode, Encode};

#[derive(Encode, Decode)]
pub(super) enum StoredImage {
    V1 {
        name: String,
        digest: [u8; 32],
        uuid: [u8; 16],
        size: u64,
        source: String,
        created_unix_ms: u64,
    },
}

#[derive(Encode, Decode)]
pub(super) enum StoredKernel {
    V1 {
        name: String,
        digest: [u8; 32],
        version: String,
        distro: String,
        arch: String,
        modules: u32,
        size: u64,
        source: String,
        created_unix_ms: u64,
    },
}

/// What images and kernels have in common.
trait Artefact: Row + Clone + Send + 'static {
    const WHAT: &'static str;
    fn name(&self) -> &Name;
    fn digest(&self) -> Digest;
    fn table(dbs: &Dbs) -> Table<Self>;
    fn of(vm: &VmRecord) -> Digest;
    /// What is kept of it in other tables; its name is gone.
    fn forget(&self, txn: &mut RwTxn<'_>, dbs: &Dbs) -> Result<(), StoreError>;
}

impl Artefact for ImageRecord {
    const WHAT: &'static str = "image";
    fn name(&self) -> &Name {
        &self.name
    }
    fn digest(&self) -> Digest {
        self.digest
    }
    fn table(dbs: &Dbs) -> Table<Self> {
        dbs.images
    }
    fn of(vm: &VmRecord) -> Digest {
        vm.image
    }
    fn forget(&self, txn: &mut RwTxn<'_>, dbs: &Dbs) -> Result<(), StoreError> {
        let name = self.name.as_str().as_bytes();
        dbs.image_configs.delete(txn, name)?;
        dbs.image_kernels.delete(txn, name).map(drop)
    }
}

impl Artefact for KernelRecord {
    const WHAT: &'static str = "kernel";
    fn name(&self) -> &Name {
        &self.name
    }
    fn digest(&self) -> Digest {
        self.digest
    }
    fn table(dbs: &Dbs) -> Table<Self> {
        dbs.kernels
    }
    fn of(vm: &VmRecord) -> Digest {
        vm.kernel
    }
    fn forget(&self, txn: &mut RwTxn<'_>, dbs: &Dbs) -> Result<(), StoreError> {
        default_kernel::forget(txn, dbs, &self.name)?;
        kernel_features::forget(txn, dbs, self.digest)
    }
}

impl Store {
    /// Gives the image its name. The same name and contents again are no change; the record that
    /// is kept is returned. A name with other contents, or that is run in another way, is refused.
    pub async fn put_image(
        &self,
        record: ImageRecord,
        said: impl Into<ImageSaid>,
    ) -> Result<ImageRecord, StoreError> {
        let ImageSaid { config, kernel } = said.into();
        self.write(move |txn, dbs| {
            let kept = put_artefact(txn, dbs, record)?;
            let key = kept.name.as_str().as_bytes();
            match (dbs.image_configs.get(txn, key)?, config) {
                (Some(known), config) if config.as_ref() != Some(&known) => {
                    let name = kept.name.to_string();
                    return Err(StoreError::Exists { what: ImageRecord::WHAT, name });
                }
                (None, Some(config)) => dbs.image_configs.put(txn, key, config)?,
                _ => {}
            }
            if let Some(kernel) = kernel {
                dbs.image_kernels.put(txn, key, KernelWish(kernel))?;
            }
            Ok(kept)
        })
        .await
    }

    /// As an image. What is known of its options is kept, whichever name it came under.
    pub async fn put_kernel(
        &self,
        record: KernelRecord,
        features: KernelFeatures,
    ) -> Result<KernelRecord, StoreError> {
        self.write(move |txn, dbs| {
            let kept = put_artefact(txn, dbs, record)?;
            kernel_features::learn(txn, dbs, kept.digest, features)?;
            Ok(kept)
        })
        .await
    }

    /// Gives an image one more name, that is run in the same way. A name that has these contents
    /// already is no change (false); one that has others is refused.
    pub async fn tag_image(
        &self,
        image: Name,
        tag: Name,
        unix_ms: u64,
    ) -> Result<bool, StoreError> {
        self.write(move |txn, dbs| {
            let (from, to) = (image.as_str().as_bytes(), tag.as_str().as_bytes());
            let Some(record) = dbs.images.get(txn, from)? else {
                return Err(StoreError::NotFound { what: "image", name: image.to_string() });
            };
            let config = dbs.image_configs.get(txn, from)?;
            if let Some(known) = dbs.images.get(txn, to)? {
                let same = known.digest == record.digest;
                if same && dbs.image_configs.get(txn, to)? == config {
                    return Ok(false);
                }
                return Err(StoreError::Exists { what: "image", name: tag.to_string() });
            }
            let named = ImageRecord { name: tag.clone(), created_unix_ms: unix_ms, ..record };
            dbs.images.put(txn, to, named)?;
            if let Some(config) = config {
                dbs.image_configs.put(txn, to, config)?;
            }
            if let Some(kernel) = dbs.image_kernels.get(txn, from)? {
                dbs.image_kernels.put(txn, to, kernel)?;
            }
            Ok(true)
        })
        .await
    }

    pub fn image(&self, name: &str) -> Result<Option<ImageRecord>, StoreError> {
        self.read(|txn, dbs| dbs.images.get(txn, name.as_bytes()))
    }

    pub fn kernel(&self, name: &str) -> Result<Option<KernelRecord>, StoreError> {
        self.read(|txn, dbs| dbs.kernels.get(txn, name.as_bytes()))
    }

    pub fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        self.read(|txn, dbs| dbs.images.all(txn))
    }

    pub fn kernels(&self) -> Result<Vec<KernelRecord>, StoreError> {
        self.read(|txn, dbs| dbs.kernels.all(txn))
    }

    /// Refused while a VM boots from the same contents and no other name has them.
    pub async fn delete_image(&self, name: Name) -> Result<(), StoreError> {
        self.delete_artefact::<ImageRecord>(name).await
    }

    pub async fn delete_kernel(&self, name: Name) -> Result<(), StoreError> {
        self.delete_artefact::<KernelRecord>(name).await
    }

    async fn delete_artefact<R: Artefact>(&self, name: Name) -> Result<(), StoreError> {
        self.write(move |txn, dbs| {
            let (table, name) = (R::table(dbs), name.to_string());
            let Some(record) = table.get(txn, name.as_bytes())? else {
                return Err(StoreError::NotFound { what: R::WHAT, name });
            };
            let users = dbs.vms.all(txn)?.into_iter().filter(|vm| R::of(vm) == record.digest());
            let by: Vec<_> = users.map(|vm| vm.spec.name.to_string()).collect();
            let same = table.all(txn)?.into_iter().filter(|one| one.digest() == record.digest());
            if !by.is_empty() && same.count() == 1 {
                return Err(StoreError::InUse { what: R::WHAT, name, by });
            }
            table.delete(txn, name.as_bytes())?;
            record.forget(txn, dbs)
        })
        .await
    }
}

fn put_artefact<R: Artefact>(txn: &mut RwTxn<'_>, dbs: &Dbs, record: R) -> Result<R, StoreError> {
    let (table, name) = (R::table(dbs), record.name().to_string());
    match table.get(txn, name.as_bytes())? {
        Some(known) if known.digest() == record.digest() => Ok(known),
        Some(_) => Err(StoreError::Exists { what: R::WHAT, name }),
        None => {
            table.put(txn, name.as_bytes(), record.clone())?;
            Ok(record)
        }
    }
}

impl Row for ImageRecord {
    type Stored = StoredImage;
}

impl Row for KernelRecord {
    type Stored = StoredKernel;
}

impl From<ImageRecord> for StoredImage {
    fn from(image: ImageRecord) -> Self {
        Self::V1 {
            name: image.name.to_string(),
            digest: image.digest.0,
            uuid: image.uuid,
            size: image.size.bytes(),
            source: image.source,
            created_unix_ms: image.created_unix_ms,
        }
    }
}

impl TryFrom<StoredImage> for ImageRecord {
    type Error = BadValue;

    fn try_from(stored: StoredImage) -> Result<Self, BadValue> {
        let StoredImage::V1 { name, digest, uuid, size, source, created_unix_ms } = stored;
        let name = Name::image(&name).map_err(BadValue::because)?;
        let (digest, size) = (Digest(digest), Size::from_bytes(size));
        Ok(Self { name, digest, uuid, size, source, created_unix_ms })
    }
}

impl From<KernelRecord> for StoredKernel {
    fn from(kernel: KernelRecord) -> Self {
        Self::V1 {
            name: kernel.name.to_string(),
            digest: kernel.digest.0,
            version: kernel.version,
            distro: kernel.distro,
            arch: kernel.arch,
            modules: kernel.modules,
            size: kernel.size.bytes(),
            source: kernel.source,
            created_unix_ms: kernel.created_unix_ms,
        }
    }
}

impl TryFrom<StoredKernel> for KernelRecord {
    type Error = BadValue;

    fn try_from(stored: StoredKernel) -> Result<Self, BadValue> {
        let StoredKernel::V1 {
            name,
            digest,
            version,
            distro,
            arch,
            modules,
            size,
            source,
            created_unix_ms,
        } = stored;
        let name = Name::artefact(&name).map_err(BadValue::because)?;
        let (digest, size) = (Digest(digest), Size::from_bytes(size));
        Ok(Self { name, digest, version, distro, arch, modules, size, source, created_unix_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::reserve_tests::{draft, image, stocked};

    fn name(text: &str) -> Name {
        Name::artefact(text).unwrap()
    }

    #[tokio::test]
    async fn contents_are_kept_while_a_name_is_left_for_them() {
        let (_dir, store) = stocked().await;
        store.reserve_vm(draft(7, "web")).await.unwrap();
        let refused = store.delete_image(name("debian")).await.unwrap_err();
        assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
        assert!(store.tag_image(name("debian"), name("base"), 9).await.unwrap());
        assert!(!store.tag_image(name("debian"), name("base"), 10).await.unwrap(), "known");
        let tagged = store.image("base").unwrap().unwrap();
        assert_eq!((tagged.digest, tagged.created_unix_ms), (image("x", 1).digest, 9));
        store.delete_image(name("debian")).await.unwrap();
        let refused = store.delete_image(name("base")).await.unwrap_err();
        assert!(matches!(refused, StoreError::InUse { .. }), "the last name: {refused}");
    }

    #[tokio::test]
    async fn a_name_that_means_something_else_is_not_taken() {
        let (_dir, store) = stocked().await;
        let config = |cmd: &str| crate::model::ImageConfig {
            cmd: vec![cmd.to_owned()],
            ..Default::default()
        };
        store.put_image(image("other", 2), Some(config("a"))).await.unwrap();
        let missing = store.tag_image(name("nope"), name("x"), 9).await.unwrap_err();
        assert!(matches!(missing, StoreError::NotFound { .. }), "{missing}");
        let taken = store.tag_image(name("debian"), name("other"), 9).await.unwrap_err();
        assert!(matches!(taken, StoreError::Exists { .. }), "{taken}");
        assert!(store.tag_image(name("other"), name("twin"), 9).await.unwrap());
        assert_eq!(store.image_config("twin").unwrap(), Some(config("a")));
        store.put_image(image("third", 2), Some(config("b"))).await.unwrap();
        let taken = store.tag_image(name("other"), name("third"), 9).await.unwrap_err();
        assert!(matches!(taken, StoreError::Exists { .. }), "run in another way: {taken}");
    }
}
