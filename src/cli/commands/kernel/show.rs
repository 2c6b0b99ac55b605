//! `banger kernel show`.

use anstyle::Style;
use clap_complete::ArgValueCandidates;
use serde::Serialize;

use crate::cli::app::App;
use crate::cli::client::only;
use crate::cli::clock;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{DIM, GREEN, RED, YELLOW};
use crate::cli::ui::table::{self, Cell, Table};
use crate::cli::ui::text;
use crate::wire::reply::{KernelFeatureInfo, KernelInfo};
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger kernel show debian
  banger kernel show debian --json | jq -r '.features[] | select(.support == \"no\").option'

GUESTS is what guests have of an option: yes, a module that they load, a module-left-out that they
do not get, no, or unknown where the kernel does not say how it was configured. A VM that is known
not to boot is refused when it is made; nothing is refused for what is unknown.";

/// Print what is known of a kernel, and which features its guests have
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name of the kernel
    #[arg(add = ArgValueCandidates::new(complete::kernels))]
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    kernel: KernelInfo,
    features: Vec<KernelFeatureInfo>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(Some(&args.name))?;
    let mut client = app.client().await?;
    let asked = client.kernels(op, Request::ShowKernel { name: args.name.clone() }).await;
    let kernel = asked.and_then(|kernels| only(kernels, "a kernel"));
    let kernel = kernel.map_err(|error| error.about(&args.name))?;
    let features = client.kernel_features(op, &kernel.name).await?;
    let shown = Shown { kernel, features };
    if args.json {
        app.out.json(&shown)?;
    } else {
        print(app, &shown)?;
    }
    Ok(Exit::Ok)
}

fn print(app: &App, Shown { kernel, features }: &Shown) -> Result<(), CliError> {
    let used_by = match &kernel.used_by[..] {
        [] => "-".to_owned(),
        users => users.join(", "),
    };
    table::pairs(
        &app.out,
        [
            ("name", kernel.name.clone()),
            ("version", kernel.version.clone()),
            ("distro", kernel.distro.clone()),
            ("arch", kernel.arch.clone()),
            ("source", kernel.source.clone()),
            ("digest", kernel.digest.clone()),
            ("size", text::size(kernel.size_bytes)),
            ("modules", kernel.modules.to_string()),
            ("imported", text::ago(clock::unix_ms(), kernel.created_unix_ms)),
            ("used by", used_by),
        ],
    )?;
    app.out.line("")?;
    let mut table = Table::new(["OPTION", "GUESTS", "FOR", "NEEDED BY"]);
    for feature in features {
        let needed = !feature.needed_by.is_empty();
        table.row([
            feature.option.as_str().into(),
            Cell::styled(feature.support.as_str(), style(&feature.support, needed)),
            feature.purpose.as_str().into(),
            feature.needed_by.join(", ").into(),
        ]);
    }
    table.print(&app.out)
}

fn style(support: &str, needed: bool) -> Style {
    match (support, needed) {
        ("yes" | "module", _) => GREEN,
        ("unknown", _) => YELLOW,
        (_, true) => RED,
        _ => DIM,
    }
}
