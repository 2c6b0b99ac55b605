//! What images say of how they are run: of a name, beside its row, and of a VM, as it was when the VM
//! was made. An image that came as a root file system has none.

use heed::RwTxn;

use super::schema::Dbs;
use super::table::{BadValue, Row};
use super::{Store, StoreError};
use crate::model::{ImageConfig, ImageUse, VmId};
use crate::wire::codec::{Decode, Encode};

#[derive(Encode, Decode)]
pub(super) enum StoredConfig {
    V1 {
        entrypoint: Vec<String>,
        cmd: Vec<String>,
        env: Vec<(String, String)>,
        user: String,
        workdir: String,
        stop_signal: String,
        ports: Vec<String>,
        volumes: Vec<String>,
        labels: Vec<(String, String)>,
    },
}

#[derive(Encode, Decode)]
pub(super) enum StoredUse {
    V1 { config: StoredConfig, runs: bool },
}

impl Row for ImageConfig {
    type Stored = StoredConfig;
}

impl Row for ImageUse {
    type Stored = StoredUse;
}

impl From<ImageConfig> for StoredConfig {
    fn from(config: ImageConfig) -> Self {
        let ImageConfig {
            entrypoint,
            cmd,
            env,
            user,
            workdir,
            stop_signal,
            ports,
            volumes,
            labels,
        } = config;
        Self::V1 { entrypoint, cmd, env, user, workdir, stop_signal, ports, volumes, labels }
    }
}

impl TryFrom<StoredConfig> for ImageConfig {
    type Error = BadValue;

    fn try_from(stored: StoredConfig) -> Result<Self, BadValue> {
        let StoredConfig::V1 {
            entrypoint,
            cmd,
            env,
            user,
            workdir,
            stop_signal,
            ports,
            volumes,
            labels,
        } = stored;
        Ok(Self { entrypoint, cmd, env, user, workdir, stop_signal, ports, volumes, labels })
    }
}

impl From<ImageUse> for StoredUse {
    fn from(used: ImageUse) -> Self {
        Self::V1 { config: used.config.into(), runs: used.runs }
    }
}

impl TryFrom<StoredUse> for ImageUse {
    type Error = BadValue;

    fn try_from(stored: StoredUse) -> Result<Self, BadValue> {
        let StoredUse::V1 { config, runs } = stored;
        Ok(Self { config: config.try_into()?, runs })
    }
}

impl Store {
    pub fn image_config(&self, image: &str) -> Result<Option<ImageConfig>, StoreError> {
        self.read(|txn, dbs| dbs.image_configs.get(txn, image.as_bytes()))
    }

    /// What the VM's image said when the VM was made.
    pub fn image_use(&self, vm: VmId) -> Result<Option<ImageUse>, StoreError> {
        self.read(|txn, dbs| dbs.image_uses.get(txn, &vm.0))
    }
}

/// Of a new VM.
pub(super) fn take(
    txn: &mut RwTxn<'_>,
    dbs: &Dbs,
    vm: VmId,
    image: &str,
    runs: bool,
) -> Result<(), StoreError> {
    match dbs.image_configs.get(txn, image.as_bytes())? {
        Some(config) => dbs.image_uses.put(txn, &vm.0, ImageUse { config, runs }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Outcome;
    use crate::store::VmDraft;
    use crate::store::reserve_tests::{draft, image, stocked};

    fn config(cmd: &str) -> ImageConfig {
        ImageConfig { cmd: vec![cmd.to_owned()], ..ImageConfig::default() }
    }

    #[tokio::test]
    async fn a_vm_keeps_what_its_image_said_until_it_goes() {
        let (_dir, store) = stocked().await;
        store.put_image(image("web", 5), Some(config("serve"))).await.unwrap();
        assert_eq!(store.image_config("web").unwrap(), Some(config("serve")));
        let mut wanted = draft(7, "a");
        wanted.spec.image = "web".to_owned();
        let vm = wanted.id;
        store.reserve_vm(VmDraft { runs: true, ..wanted }).await.unwrap();
        let kept = ImageUse { config: config("serve"), runs: true };
        assert_eq!(store.image_use(vm).unwrap(), Some(kept));
        store.reserve_vm(draft(8, "b")).await.unwrap();
        assert_eq!(store.image_use(draft(8, "b").id).unwrap(), None, "an image without one");
        store.delete_vm(draft(7, "a").intent.id, Outcome::Done, 9, vm).await.unwrap();
        assert_eq!(store.image_use(vm).unwrap(), None);
        store.delete_image("web".parse().unwrap()).await.unwrap();
        assert_eq!(store.image_config("web").unwrap(), None);
    }

    #[tokio::test]
    async fn the_same_files_run_in_another_way_are_another_image() {
        let (_dir, store) = stocked().await;
        store.put_image(image("web", 5), None).await.unwrap();
        store.put_image(image("web", 5), Some(config("serve"))).await.unwrap();
        assert_eq!(store.image_config("web").unwrap(), Some(config("serve")), "it was not known");
        store.put_image(image("web", 5), Some(config("serve"))).await.unwrap();
        let other = store.put_image(image("web", 5), Some(config("other"))).await;
        assert!(matches!(other, Err(StoreError::Exists { .. })), "{other:?}");
        store.put_image(image("twin", 5), Some(config("other"))).await.unwrap();
        assert_eq!(store.image_config("web").unwrap(), Some(config("serve")));
    }
}
