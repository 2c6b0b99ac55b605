//! The options that say what a new VM is to be; whatever is not given the daemon decides.

use std::time::Instant;

use clap_complete::ArgValueCandidates;

use super::upkeep::UpkeepArgs;
use crate::cli::app::App;
use crate::cli::commands::image::pull::PullArg;
use crate::cli::commands::parse;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::ui::text;
use crate::model::{ImageRef, Size};
use crate::wire::reply::VmInfo;
use crate::wire::request::{CreateVm, DiskBackend, PullWhen, Request, Vmm};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The VM")]
pub(crate) struct SpecArgs {
    /// Name, a DNS label [default: generated]
    #[arg(long, value_parser = parse::vm_name)]
    name: Option<String>,
    /// Image to start from: a name as in `image list`, or a registry's, such as python:3.12
    #[arg(long, add = ArgValueCandidates::new(complete::images))]
    image: Option<String>,
    /// When the image is asked of its registry
    #[arg(long, value_enum, value_name = "WHEN", default_value = "missing")]
    pull: PullArg,
    /// Guest kernel [default: the newest]
    #[arg(long, add = ArgValueCandidates::new(complete::kernels))]
    kernel: Option<String>,
    /// Number of CPUs
    #[arg(
        long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    vcpu: Option<u32>,
    /// Memory: 512M, 4G; a bare number is MiB
    #[arg(
        long, value_name = "SIZE", allow_hyphen_values = true, value_parser = parse::memory
    )]
    memory: Option<u32>,
    /// What can be written to / besides the image
    #[arg(
        long, value_name = "SIZE", allow_hyphen_values = true, value_parser = parse::size
    )]
    disk_size: Option<Size>,
    /// Size of the disk at /root
    #[arg(
        long, value_name = "SIZE", allow_hyphen_values = true, value_parser = parse::size
    )]
    work_disk_size: Option<Size>,
    /// Let the guest reach the internet
    #[arg(long)]
    nat: bool,
    /// Environment of every command in the VM; NAME alone takes its value from here
    #[arg(
        long = "env", short, value_name = "NAME[=VALUE]", value_parser = parse::variable
    )]
    env: Vec<(String, Option<String>)>,
    /// Program that runs the VM
    #[arg(long, value_enum, value_name = "VMM", default_value = "auto")]
    vmm: VmmArg,
    /// How its root disk is made from the image
    #[arg(long, value_enum, value_name = "BACKEND", default_value = "auto")]
    disk: DiskArg,
    /// Record a serial console on Firecracker, too, at some cost of speed; `vm logs` prints it
    #[arg(long)]
    console: bool,
    /// Start from the memory of a guest that has booted; the first one leaves it [default: as
    /// configured]
    #[arg(long, overrides_with = "no_warm")]
    warm: bool,
    /// Boot it
    #[arg(long, overrides_with = "warm")]
    no_warm: bool,
    #[command(flatten)]
    upkeep: UpkeepArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum DiskArg {
    /// The first of the following that the host has
    Auto,
    /// Shares the image's blocks (xfs, btrfs)
    Reflink,
    /// A device-mapper snapshot of the image
    DmSnapshot,
    /// The guest lays a disk of its own over the image
    Overlay,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum VmmArg {
    Auto,
    Qemu,
    Firecracker,
}

impl SpecArgs {
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The image that a registry may have to be asked for, and when.
    pub(crate) fn pull(&self) -> Result<Option<(String, PullWhen)>, CliError> {
        let image = self.image.as_deref();
        let reference = image.filter(|image| ImageRef::is_meant(image)).map(str::to_owned);
        match (self.pull, reference) {
            (PullArg::Never, _) | (PullArg::Missing, None) => Ok(None),
            (PullArg::Missing, Some(image)) => Ok(Some((image, PullWhen::Missing))),
            (PullArg::Always, Some(image)) => Ok(Some((image, PullWhen::Always))),
            (PullArg::Always, None) => {
                let image = image.unwrap_or("the default image");
                let error =
                    CliError::usage(format!("{image} is the name of an image that is here"));
                Err(error.hint("what a registry has is named with its tag: --image alpine:latest"))
            }
        }
    }

    pub(crate) fn has_nat(&self) -> bool {
        self.nat
    }

    /// `runs`: the program of its image, from every start on.
    pub(crate) fn request(self, start: bool, runs: bool) -> Result<Request, CliError> {
        let warm = (self.warm || self.no_warm).then_some(self.warm);
        let disk = match self.disk {
            DiskArg::Auto => DiskBackend::Auto,
            DiskArg::Reflink => DiskBackend::Reflink,
            DiskArg::DmSnapshot => DiskBackend::DmSnapshot,
            DiskArg::Overlay => DiskBackend::Overlay,
        };
        let create = CreateVm {
            name: self.name,
            image: self.image,
            kernel: self.kernel,
            vcpu: self.vcpu,
            memory_mib: self.memory,
            disk_bytes: self.disk_size.map(Size::bytes),
            work_disk_bytes: self.work_disk_size.map(Size::bytes),
            nat: self.nat,
            env: parse::environment(self.env)?,
            vmm: match self.vmm {
                VmmArg::Auto => Vmm::Auto,
                VmmArg::Qemu => Vmm::Qemu,
                VmmArg::Firecracker => Vmm::Firecracker,
            },
            start,
        };
        let console = self.console;
        let upkeep = self.upkeep.upkeep();
        if runs {
            let upkeep = upkeep.unwrap_or_default();
            return Ok(Request::CreateVmRun { create, disk, console, warm, upkeep, runs });
        }
        Ok(match (upkeep, disk, console, warm) {
            (Some(upkeep), ..) => Request::CreateVmKept { create, disk, console, warm, upkeep },
            (None, DiskBackend::Auto, false, None) => Request::CreateVm(create),
            (None, ..) => Request::CreateVmOn { create, disk, console, warm },
        })
    }
}

/// What became of the request, with what the daemon added to it.
pub(super) fn announce(app: &App, vm: &VmInfo, began: Instant) {
    app.out.note(summary(vm));
    let took = text::elapsed(began.elapsed());
    app.out.note(format!("{} is {} at {} after {took}", vm.name, vm.state, vm.address));
}

/// `spec: 4 vcpu | 8192 MiB | 8G disk`.
fn summary(vm: &VmInfo) -> String {
    let disk = text::size(vm.disk_bytes);
    format!("spec: {} vcpu | {} MiB | {disk} disk", vm.vcpu, vm.memory_mib)
}
