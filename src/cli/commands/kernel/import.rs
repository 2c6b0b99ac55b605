//! `banger kernel import`.

use std::path::PathBuf;

use clap::ValueHint;

use crate::cli::app::App;
use crate::cli::commands::parse;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::{self, OnInterrupt};
use crate::cli::ui::progress::Progress;
use crate::wire::request::{KernelSource, Request};

const AFTER: &str = "\
Examples:
  apt-get download linux-image-6.1.0-50-cloud-amd64
  banger kernel import debian-6.1 linux-image-6.1.0-50-cloud-amd64_*.deb
  banger kernel import fedora kernel-core-6.11.4-*.rpm kernel-modules-core-6.11.4-*.rpm
  banger kernel import mine --kernel ./vmlinux --modules ./lib/modules/6.6.1

The daemon reads the paths as its own user.";

/// Make a guest kernel from packages (.deb, .rpm) or from files
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name of the kernel
    #[arg(value_parser = parse::artefact_name)]
    name: String,
    /// Package with a kernel and its modules, .deb or .rpm; several if the modules are in their own
    #[arg(
        value_name = "PACKAGE", required_unless_present = "kernel", conflicts_with = "kernel",
        value_hint = ValueHint::FilePath
    )]
    packages: Vec<PathBuf>,
    /// Kernel file: vmlinux or bzImage
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    kernel: Option<PathBuf>,
    /// Directory with the kernel's modules
    #[arg(long, value_name = "DIR", requires = "kernel", value_hint = ValueHint::DirPath)]
    modules: Option<PathBuf>,
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
        None => KernelSource::Packages {
            paths: args.packages.into_iter().map(path).collect::<Result<_, _>>()?,
        },
    };
    let mut client = app.client().await?;
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let request = Request::ImportKernel { name: name.clone(), source };
    let ended = operation::run(&mut client, op, &request, &mut track, OnInterrupt::Cancel).await;
    let ended = ended.map_err(|broken| CliError::from(broken).about(&name))?;
    if let Some(why) = ended.unchanged() {
        track.note(format!("{name}: {why}"));
    }
    drop(track);
    app.out.line(name)?;
    Ok(Exit::Ok)
}
