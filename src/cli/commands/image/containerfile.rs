//! `banger image build containerfile`.

use std::path::PathBuf;

use clap::ValueHint;

use crate::cli::app::App;
use crate::cli::commands::{make, parse};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::OnInterrupt;
use crate::wire::request::{ImageSource, Request};

const AFTER: &str = "\
Examples:
  banger image build containerfile .
  banger image build containerfile ./app --name app --file ./app/Dockerfile --target release
  banger image build containerfile . --build-arg VERSION=1.2 && banger vm run --image app

buildah builds it, as the daemon's user, who has to be able to read the directory. It keeps its layers for
the next build; `buildah prune` empties that. Ctrl-C takes back what was made.";

/// Build an image from a Containerfile or Dockerfile with buildah
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Directory whose files the build may use
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    context: PathBuf,
    /// Name of the image [default: the directory's]
    #[arg(long, value_parser = parse::artefact_name)]
    name: Option<String>,
    /// File to build from [default: Containerfile or Dockerfile in DIR]
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Stage to build, of several
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Value of an ARG; without a value, what the environment has
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]", value_parser = argument)]
    arguments: Vec<String>,
}

fn argument(text: &str) -> Result<String, String> {
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    if name.is_empty() {
        return Err("an argument is NAME=VALUE".to_owned());
    }
    if text.contains('=') {
        return Ok(text.to_owned());
    }
    let value = std::env::var(name).map_err(|_| format!("the environment has no {name}"))?;
    Ok(format!("{name}={value}"))
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let Args { context, name, file, target, arguments } = args;
    let context = parse::absolute(&context)?;
    if !context.is_dir() {
        return Err(CliError::usage(format!("{} is not a directory", context.display())));
    }
    let name = match name {
        Some(name) => name,
        None => {
            let directory = context.file_name().unwrap_or_default().to_string_lossy();
            parse::artefact_name(&directory)
                .map_err(|why| CliError::usage(why).hint("name the image: --name NAME"))?
        }
    };
    let file = file.map(|file| parse::utf8(parse::absolute(&file)?)).transpose()?;
    let context = parse::utf8(context)?;
    let source = ImageSource::Containerfile { context, file, target, arguments };
    let request = Request::ImportImage { name: name.clone(), source };
    let op = app.op(Some(&name))?;
    make::run(app, op, name, &request, OnInterrupt::Cancel).await
}
