//! A kernel as it came in a bundle.

use super::manifest::{BundleError, Contents, MODULES, VMLINUX};
use super::read::Bundle;
use crate::host::image::import::{ImportError, Watch};
use crate::host::image::kernel::{Prepared, set_pvh, vmlinux};
use crate::model::{Digest, chain, lack_text, lacking_for_every};

/// Of each of its files. All of it is in memory, as in every import of a kernel.
const LARGEST: u64 = 512 << 20;

/// What becomes a kernel's directory, and the digest that it is said to have.
pub(in crate::host::image) fn prepared(
    bundle: Bundle,
    watch: &mut Watch,
) -> Result<(Prepared, Digest), ImportError> {
    if let Some(file) = bundle.manifest.files.iter().find(|file| file.size > LARGEST) {
        return Err(BundleError::TooLarge(file.name.clone()).into());
    }
    let (mut kernel, mut modules) = (vec![], vec![]);
    let manifest = bundle.each(watch, &mut |name, piece| {
        let into = if name == VMLINUX { &mut kernel } else { &mut modules };
        into.extend_from_slice(piece);
        Ok(())
    })?;
    let Contents::Kernel(said) = manifest.contents else {
        return Err(BundleError::Missing(MODULES.to_owned()).into());
    };
    let packed = kernel.clone();
    let vmlinux = vmlinux(kernel).map_err(|error| BundleError::NotAKernel(chain(&error)))?;
    if vmlinux != packed {
        return Err(BundleError::NotAKernel("it is packed".to_owned()).into());
    }
    let mut features = said.features;
    set_pvh(&mut features, &vmlinux);
    let lacks = lacking_for_every(&features);
    if !lacks.is_empty() {
        return Err(BundleError::NotAKernel(format!("it {}", lack_text(&lacks))).into());
    }
    let made = Prepared {
        vmlinux,
        modules,
        module_names: said.modules,
        version: said.version,
        distro: said.distro,
        features,
    };
    Ok((made, manifest.digest))
}
