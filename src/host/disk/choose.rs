//! Which way a new VM's root disk is made.

use std::path::Path;

use super::{mapped, reflink};
use crate::host::files::blocking;
use crate::host::helper_client::HelperClient;
use crate::model::{Code, DiskBackend, DiskChoice, OpId, RootDisk};
use crate::ports::{BaseImage, HostError};

/// Tries what can be tried: the first that this host has and the image bears.
pub(super) async fn root(
    vms: &Path,
    helper: Option<&HelperClient>,
    op: OpId,
    choice: DiskChoice,
    base: &BaseImage,
) -> Result<RootDisk, HostError> {
    let clones = |has: Result<(), String>| match (has, base.growable) {
        (Ok(()), false) => {
            Err("the image is of a format without a journal; import it again".into())
        }
        (has, _) => has,
    };
    let vms = vms.to_owned();
    let reflink = blocking("try to clone a file", move || {
        reflink::probe(&vms)
            .map_err(|error| HostError::io("clone a file in", vms.display().to_string(), error))
    });
    let settled = |backend, why: String| Ok(RootDisk { backend, why });
    let asked = |backend, has: Result<(), String>| match clones(has) {
        Ok(()) => settled(backend, "asked for".to_owned()),
        Err(why) => Err(HostError::new(Code::Refused, "make a root disk by", backend.as_str())
            .because(why)
            .hint("`--disk auto` takes what this host has")),
    };
    match choice {
        DiskChoice::Only(DiskBackend::Overlay) => {
            settled(DiskBackend::Overlay, "asked for".to_owned())
        }
        DiskChoice::Only(backend @ DiskBackend::DmSnapshot) => {
            asked(backend, mapped::available(helper, op).await?)
        }
        DiskChoice::Only(backend @ DiskBackend::Reflink) => {
            asked(backend, reflink.await?.map_err(str::to_owned))
        }
        DiskChoice::Auto => {
            let Err(first) = clones(reflink.await?.map_err(str::to_owned)) else {
                return settled(DiskBackend::Reflink, "blocks are shared with the image".into());
            };
            match clones(mapped::available(helper, op).await?) {
                Ok(()) => settled(DiskBackend::DmSnapshot, first),
                Err(second) if second == first => settled(DiskBackend::Overlay, first),
                Err(second) => settled(DiskBackend::Overlay, format!("{first}; {second}")),
            }
        }
    }
}
