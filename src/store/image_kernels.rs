//! Which kernel an image wants: of a name, beside its row. Most images say nothing of that.

use super::table::{BadValue, Row};
use super::{Store, StoreError};
use crate::model::Name;
use crate::wire::codec::{Decode, Encode};

/// By its name, which need not be here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KernelWish(pub(super) Name);

#[derive(Encode, Decode)]
pub(super) enum StoredKernelWish {
    V1 { kernel: String },
}

impl Row for KernelWish {
    type Stored = StoredKernelWish;
}

impl From<KernelWish> for StoredKernelWish {
    fn from(KernelWish(kernel): KernelWish) -> Self {
        Self::V1 { kernel: kernel.to_string() }
    }
}

impl TryFrom<StoredKernelWish> for KernelWish {
    type Error = BadValue;

    fn try_from(stored: StoredKernelWish) -> Result<Self, BadValue> {
        let StoredKernelWish::V1 { kernel } = stored;
        Name::artefact(&kernel).map(Self).map_err(BadValue::because)
    }
}

impl Store {
    pub fn image_kernel(&self, image: &str) -> Result<Option<Name>, StoreError> {
        let wanted = self.read(|txn, dbs| dbs.image_kernels.get(txn, image.as_bytes()))?;
        Ok(wanted.map(|KernelWish(kernel)| kernel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ImageSaid;
    use crate::store::reserve_tests::{image, stocked};

    #[tokio::test]
    async fn an_image_and_its_other_names_want_one_kernel() {
        let (_dir, store) = stocked().await;
        let name = |text: &str| Name::artefact(text).unwrap();
        let said = ImageSaid { config: None, kernel: Some(name("generic-6.12")) };
        store.put_image(image("web", 5), said).await.unwrap();
        store.put_image(image("web", 5), None).await.unwrap(); // says nothing of it
        assert!(store.tag_image(name("web"), name("twin"), 9).await.unwrap());
        for known in ["web", "twin"] {
            assert_eq!(store.image_kernel(known).unwrap(), Some(name("generic-6.12")));
        }
        assert_eq!(store.image_kernel("debian").unwrap(), None);
        store.delete_image(name("web")).await.unwrap();
        assert_eq!(store.image_kernel("web").unwrap(), None);
        store.put_pulled(image("twin", 5), None).await.unwrap();
        assert_eq!(store.image_kernel("twin").unwrap(), None, "what it is now says nothing");
    }
}
