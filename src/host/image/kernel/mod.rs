//! Guest kernels: from a package or from files to what VMMs load (an ELF `vmlinux`, an ARM64 `Image`)
//! and the modules a guest needs.

mod arm64;
mod bzimage;
mod config;
mod deb;
mod elf;
mod modules;
mod prepare;
mod rpm;

pub(super) use bzimage::vmlinux;
pub(super) use deb::field;
pub(super) use prepare::{Prepared, from_files, from_packages, set_pvh};

#[cfg(test)]
pub(super) use bzimage::tests::elf as test_elf;
