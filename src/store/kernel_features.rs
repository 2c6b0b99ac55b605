//! Which options kernels have: by the digest of their contents, for as long as a name is left for
//! those. What is not known has no row, or is not in it.

use heed::RwTxn;

use super::schema::Dbs;
use super::table::{BadValue, Row};
use super::{Store, StoreError};
use crate::model::{Digest, KernelFeature, KernelFeatures, KernelSupport};
use crate::wire::codec::{Decode, Encode};

#[derive(Encode, Decode)]
pub(super) enum StoredFeatures {
    /// By the names that options have in a kernel's configuration.
    V1 { options: Vec<(String, SupportV1)> },
}

#[derive(Encode, Decode)]
pub(super) enum SupportV1 {
    BuiltIn,
    Module,
    LeftOut,
    No,
}

impl Row for KernelFeatures {
    type Stored = StoredFeatures;
}

impl From<KernelFeatures> for StoredFeatures {
    fn from(features: KernelFeatures) -> Self {
        let stored = |(feature, support): (KernelFeature, _)| {
            let support = match support {
                KernelSupport::BuiltIn => SupportV1::BuiltIn,
                KernelSupport::Module => SupportV1::Module,
                KernelSupport::LeftOut => SupportV1::LeftOut,
                KernelSupport::No => SupportV1::No,
                KernelSupport::Unknown => return None,
            };
            Some((feature.option().to_owned(), support))
        };
        Self::V1 { options: features.known().filter_map(stored).collect() }
    }
}

impl TryFrom<StoredFeatures> for KernelFeatures {
    type Error = BadValue;

    fn try_from(stored: StoredFeatures) -> Result<Self, BadValue> {
        let StoredFeatures::V1 { options } = stored;
        let mut features = Self::default();
        for (option, support) in options {
            // One that nobody has use for any more.
            let Some(feature) = KernelFeature::named(&option) else { continue };
            let support = match support {
                SupportV1::BuiltIn => KernelSupport::BuiltIn,
                SupportV1::Module => KernelSupport::Module,
                SupportV1::LeftOut => KernelSupport::LeftOut,
                SupportV1::No => KernelSupport::No,
            };
            features.set(feature, support);
        }
        Ok(features)
    }
}

impl Store {
    /// Of a kernel that came before there was such a table, nothing is known.
    pub fn kernel_features(&self, kernel: Digest) -> Result<KernelFeatures, StoreError> {
        let found = self.read(|txn, dbs| dbs.kernel_features.get(txn, &kernel.0));
        found.map(Option::unwrap_or_default)
    }
}

/// The same contents may come once with their configuration and once without it.
pub(super) fn learn(
    txn: &mut RwTxn<'_>,
    dbs: &Dbs,
    kernel: Digest,
    features: KernelFeatures,
) -> Result<(), StoreError> {
    let mut known = dbs.kernel_features.get(txn, &kernel.0)?.unwrap_or_default();
    features.known().for_each(|(feature, support)| known.set(feature, support));
    if known.is_empty() { Ok(()) } else { dbs.kernel_features.put(txn, &kernel.0, known) }
}

/// Of contents that have lost a name.
pub(super) fn forget(txn: &mut RwTxn<'_>, dbs: &Dbs, kernel: Digest) -> Result<(), StoreError> {
    if dbs.kernels.all(txn)?.iter().any(|other| other.digest == kernel) {
        return Ok(());
    }
    dbs.kernel_features.delete(txn, &kernel.0).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::reserve_tests::{kernel, stocked};

    fn features(support: KernelSupport, of: &[KernelFeature]) -> KernelFeatures {
        let mut features = KernelFeatures::default();
        of.iter().for_each(|feature| features.set(*feature, support));
        features
    }

    #[tokio::test]
    async fn what_is_known_stays_while_a_name_is_left_for_the_contents() {
        use KernelFeature as F;
        let (_dir, store) = stocked().await;
        let digest = kernel("a", 7).digest;
        assert!(store.kernel_features(digest).unwrap().is_empty());
        let known = features(KernelSupport::Module, &[F::Overlay]);
        store.put_kernel(kernel("a", 7), known.clone()).await.unwrap();
        // Without a configuration nothing is unlearned.
        store.put_kernel(kernel("b", 7), KernelFeatures::default()).await.unwrap();
        assert_eq!(store.kernel_features(digest).unwrap(), known);
        let more = features(KernelSupport::No, &[F::Squashfs]);
        store.put_kernel(kernel("a", 7), more).await.unwrap();
        let all = store.kernel_features(digest).unwrap();
        assert_eq!(all.of(F::Overlay), KernelSupport::Module);
        assert_eq!(all.of(F::Squashfs), KernelSupport::No);
        store.delete_kernel("a".parse().unwrap()).await.unwrap();
        assert_eq!(store.kernel_features(digest).unwrap(), all);
        store.delete_kernel("b".parse().unwrap()).await.unwrap();
        assert!(store.kernel_features(digest).unwrap().is_empty());
    }

    #[test]
    fn an_option_that_is_not_known_is_passed_over() {
        let options = vec![
            ("CONFIG_GONE".to_owned(), SupportV1::No),
            ("CONFIG_EXT4_FS".to_owned(), SupportV1::BuiltIn),
        ];
        let read = KernelFeatures::try_from(StoredFeatures::V1 { options }).unwrap();
        assert_eq!(read, features(KernelSupport::BuiltIn, &[KernelFeature::Ext4]));
    }
}
