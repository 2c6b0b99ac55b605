//! `banger vm commit`.

use clap_complete::ArgValueCandidates;

use crate::cli::app::App;
use crate::cli::commands::parse;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::{self, OnInterrupt};
use crate::cli::ui::progress::Progress;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger vm stop web && banger vm commit web web-base
  banger run --image web-base

The VM has to be stopped, and stays as it is. What is in / becomes the image, run in the same way as
the VM's own; what is in /root lies on the work disk, which is the VM's, and stays there. Host names
and keys of the VM's are made anew in each VM; what its programs made of their own, such as keys of
an SSH server, is in the image. Ctrl-C takes back what was made.";

/// Make an image of a stopped VM's root
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name, id or unique prefix of the id
    #[arg(value_name = "VM", add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// Name of the image
    #[arg(value_name = "IMAGE", value_parser = parse::artefact_name)]
    image: String,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let Args { vm, image } = args;
    let op = app.op(Some(&image))?;
    let mut client = app.client().await?;
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let request = Request::CommitVm { vm: vm.clone(), image: image.clone() };
    let ended = operation::run(&mut client, op, &request, &mut track, OnInterrupt::Cancel).await;
    ended.map_err(|broken| CliError::from(broken).about(&vm))?;
    drop(track);
    app.out.line(image)?;
    Ok(Exit::Ok)
}
