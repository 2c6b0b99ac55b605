//! `banger kernel import`.

use std::path::PathBuf;

use clap::ValueHint;

use crate::cli::app::App;
use crate::cli::commands::download::{self, Place};
use crate::cli::commands::{make, parse};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::OnInterrupt;
use crate::model::Digest;
use crate::wire::request::{KernelSource, Request};

const AFTER: &str = "\
Examples:
  apt-get download linux-image-6.1.0-50-cloud-amd64
  banger kernel import debian-6.1 linux-image-6.1.0-50-cloud-amd64_*.deb
  banger kernel import fedora kernel-core-6.11.4-*.rpm kernel-modules-core-6.11.4-*.rpm
  banger kernel import mine --kernel ./vmlinux --modules ./lib/modules/6.6.1
  banger kernel import debian-6.1 debian-6.1.bundle.tar.zst      from banger kernel export
  banger kernel import debian-6.1 https://example.org/k.bundle.tar.zst --sha256 9f86d0818...

The daemon reads the paths as its own user.";

/// Make a guest kernel from packages (.deb, .rpm), from files or from a bundle
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name of the kernel
    #[arg(value_parser = parse::artefact_name)]
    name: String,
    /// Package with a kernel and its modules, .deb or .rpm; several if the modules are in their own;
    /// or a bundle, of which a URL will do
    #[arg(
        value_name = "PACKAGE|URL", required_unless_present = "kernel", conflicts_with = "kernel",
        value_hint = ValueHint::FilePath
    )]
    packages: Vec<PathBuf>,
    /// Kernel file: vmlinux or bzImage
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    kernel: Option<PathBuf>,
    /// Directory with the kernel's modules
    #[arg(long, value_name = "DIR", requires = "kernel", value_hint = ValueHint::DirPath)]
    modules: Option<PathBuf>,
    /// SHA-256 of what the URL gives
    #[arg(long, value_name = "HEX", value_parser = parse::sha256, conflicts_with = "kernel")]
    sha256: Option<Digest>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let name = args.name;
    let op = app.op(Some(&name))?;
    let path = |path: PathBuf| parse::absolute(&path).and_then(parse::utf8);
    let source = match args.kernel {
        Some(kernel) => {
            let modules = args.modules.map(path).transpose()?;
            KernelSource::Files { kernel: path(kernel)?, modules }
        }
        None => match <[PathBuf; 1]>::try_from(args.packages) {
            Ok([package]) => match download::place(package, args.sha256)? {
                Place::Url { url, sha256 } => {
                    let source = KernelSource::Url { url, sha256 };
                    let request = Request::ImportKernel { name: name.clone(), source };
                    download::run(app, &mut app.client().await?, &name, &request).await?;
                    app.out.line(name)?;
                    return Ok(Exit::Ok);
                }
                Place::Path(path) => KernelSource::Packages { paths: vec![parse::utf8(path)?] },
            },
            Err(packages) => KernelSource::Packages {
                paths: packages.into_iter().map(path).collect::<Result<_, _>>()?,
            },
        },
    };
    let request = Request::ImportKernel { name: name.clone(), source };
    make::run(app, op, name, &request, OnInterrupt::Cancel).await
}
