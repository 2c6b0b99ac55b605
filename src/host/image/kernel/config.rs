//! The configuration that a kernel was built with: in its package, beside its file, or packed into
//! the kernel itself. What cannot be read, or is no configuration, leaves the kernel's options unknown.
//!
//! Source: Linux, `kernel/configs.c`: `IKCFG_ST`, a gzip stream, `IKCFG_ED`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use crate::model::KernelConfig;
use crate::ports::HostError;

/// No configuration is larger; those of distributions have a quarter of a MiB.
pub(super) const LARGEST: u64 = 4 << 20;

const START: &[u8] = b"IKCFG_ST";
const GZIP: &[u8] = b"\x1f\x8b";

/// What a kernel with `CONFIG_IKCONFIG` says itself.
pub(super) fn embedded(vmlinux: &[u8]) -> Option<KernelConfig> {
    let mut from = 0;
    while let Some(found) = find(vmlinux.get(from..)?, START) {
        from += found + START.len();
        let packed = vmlinux.get(from..)?;
        // The same words stand in the kernel's own tools, too.
        if packed.starts_with(GZIP)
            && let Some(config) = unpack(packed)
        {
            return Some(config);
        }
    }
    None
}

fn unpack(packed: &[u8]) -> Option<KernelConfig> {
    let mut text = Vec::new();
    GzDecoder::new(packed).take(LARGEST + 1).read_to_end(&mut text).ok()?;
    if text.len() as u64 > LARGEST {
        return None;
    }
    KernelConfig::parse(&String::from_utf8_lossy(&text))
}

/// As distributions lay it: `config` with the modules, or `config-6.1.0` beside `vmlinuz-6.1.0`.
pub(super) fn beside(
    kernel: &Path,
    modules: Option<&Path>,
) -> Result<Option<KernelConfig>, HostError> {
    let version = kernel
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix("vmlinuz-").or_else(|| name.strip_prefix("vmlinux-")));
    let near = version.map(|version| kernel.with_file_name(format!("config-{version}")));
    for path in [modules.map(|dir| dir.join("config")), near].into_iter().flatten() {
        if let Some(config) = read(&path)? {
            return Ok(Some(config));
        }
    }
    Ok(None)
}

fn read(path: &PathBuf) -> Result<Option<KernelConfig>, HostError> {
    let failed = |error| HostError::io("read", path.display().to_string(), error);
    if !path.is_file() {
        return Ok(None);
    }
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut text)).map_err(failed)?;
    Ok(KernelConfig::parse(&String::from_utf8_lossy(&text)))
}

pub(super) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle.first()?;
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| byte == first) {
        if haystack[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;
    use crate::model::{KernelFeature, Setting};

    /// What such a kernel has somewhere in it.
    pub(in super::super) fn ikconfig(text: &[u8]) -> Vec<u8> {
        let mut gz = GzEncoder::new(START.to_vec(), Compression::fast());
        gz.write_all(text).unwrap();
        [gz.finish().unwrap(), b"IKCFG_ED".to_vec()].concat()
    }

    fn overlay(vmlinux: &[u8]) -> Option<Setting> {
        embedded(vmlinux).map(|config| config.of(KernelFeature::Overlay))
    }

    #[test]
    fn a_kernel_says_itself_how_it_was_configured() {
        let text = b"CONFIG_EXT4_FS=y\nCONFIG_OVERLAY_FS=m\n";
        let noise = b"\x7fELF IKCFG_ST %s\0IKCFG_ST".to_vec();
        let kernel = [noise.clone(), ikconfig(text), b"more".to_vec()].concat();
        assert_eq!(overlay(&kernel), Some(Setting::Module));
        assert_eq!(overlay(&noise), None);
        assert_eq!(overlay(b""), None);
    }

    #[test]
    fn what_is_hostile_or_damaged_is_not_known() {
        let text = b"CONFIG_OVERLAY_FS=y\n";
        let bomb = ikconfig(&vec![b'\n'; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert_eq!(overlay(&bomb), None);
        assert_eq!(overlay(&ikconfig(b"no configuration")), None);
        let whole = ikconfig(text);
        for cut in 0..whole.len() - 16 {
            assert_eq!(overlay(&whole[..cut]), None, "{cut}");
        }
        // One that is damaged does not hide one that is not.
        assert_eq!(overlay(&[&whole[..20], &whole].concat()), Some(Setting::BuiltIn));
    }

    #[test]
    fn files_beside_a_kernel_are_its_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("vmlinuz-6.1");
        assert_eq!(beside(&kernel, Some(dir.path())).unwrap(), None);
        std::fs::write(dir.path().join("config-6.1"), "CONFIG_OVERLAY_FS=y\n").unwrap();
        let found = |modules| {
            let config = beside(&kernel, modules).unwrap();
            config.map(|config| config.of(KernelFeature::Overlay))
        };
        assert_eq!(found(None), Some(Setting::BuiltIn));
        std::fs::write(dir.path().join("config"), "CONFIG_OVERLAY_FS=m\n").unwrap();
        assert_eq!(found(Some(dir.path())), Some(Setting::Module));
        assert_eq!(beside(&dir.path().join("bzImage"), None).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(before in any::<Vec<u8>>(), inside in any::<Vec<u8>>()) {
            let bytes = [&before[..], START, GZIP, &inside].concat();
            prop_assert_eq!(embedded(&bytes), None);
            let config = [ikconfig(&inside), before].concat();
            embedded(&config);
        }
    }
}
