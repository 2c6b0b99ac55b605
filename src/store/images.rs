//! Names of images and kernels. Their files are named by digest and several names may share one;
//! a file goes when no name is left for it.

use super::table::{BadValue, Row, Table};
use super::{Store, StoreError};
use crate::model::{Digest, ImageRecord, KernelRecord, Name, Size, VmRecord};
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
    fn table(dbs: &super::schema::Dbs) -> Table<Self>;
    fn of(vm: &VmRecord) -> Digest;
}

impl Artefact for ImageRecord {
    const WHAT: &'static str = "image";
    fn name(&self) -> &Name {
        &self.name
    }
    fn digest(&self) -> Digest {
        self.digest
    }
    fn table(dbs: &super::schema::Dbs) -> Table<Self> {
        dbs.images
    }
    fn of(vm: &VmRecord) -> Digest {
        vm.image
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
    fn table(dbs: &super::schema::Dbs) -> Table<Self> {
        dbs.kernels
    }
    fn of(vm: &VmRecord) -> Digest {
        vm.kernel
    }
}

impl Store {
    /// Gives the image its name. The same name and contents again are no change; the record that
    /// is kept is returned. A name with other contents is refused.
    pub async fn put_image(&self, record: ImageRecord) -> Result<ImageRecord, StoreError> {
        self.put_artefact(record).await
    }

    pub async fn put_kernel(&self, record: KernelRecord) -> Result<KernelRecord, StoreError> {
        self.put_artefact(record).await
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

    /// Refused while a VM boots from the same contents.
    pub async fn delete_image(&self, name: Name) -> Result<(), StoreError> {
        self.delete_artefact::<ImageRecord>(name).await
    }

    pub async fn delete_kernel(&self, name: Name) -> Result<(), StoreError> {
        self.delete_artefact::<KernelRecord>(name).await
    }

    async fn put_artefact<R: Artefact>(&self, record: R) -> Result<R, StoreError> {
        self.write(move |txn, dbs| {
            let (table, name) = (R::table(dbs), record.name().to_string());
            match table.get(txn, name.as_bytes())? {
                Some(known) if known.digest() == record.digest() => Ok(known),
                Some(_) => Err(StoreError::Exists { what: R::WHAT, name }),
                None => {
                    table.put(txn, name.as_bytes(), record.clone())?;
                    Ok(record)
                }
            }
        })
        .await
    }

    async fn delete_artefact<R: Artefact>(&self, name: Name) -> Result<(), StoreError> {
        self.write(move |txn, dbs| {
            let (table, name) = (R::table(dbs), name.to_string());
            let Some(record) = table.get(txn, name.as_bytes())? else {
                return Err(StoreError::NotFound { what: R::WHAT, name });
            };
            let users = dbs.vms.all(txn)?.into_iter().filter(|vm| R::of(vm) == record.digest());
            let by: Vec<_> = users.map(|vm| vm.spec.name.to_string()).collect();
            if !by.is_empty() {
                return Err(StoreError::InUse { what: R::WHAT, name, by });
            }
            table.delete(txn, name.as_bytes())?;
            Ok(())
        })
        .await
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
        let name = Name::artefact(&name).map_err(BadValue::because)?;
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
