//! `banger image prune`.

use super::cache;
use super::df::would_free;
use crate::cli::app::App;
use crate::cli::commands::many::{self, Noun};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::OnInterrupt;
use crate::cli::ui::table::Table;
use crate::cli::ui::text;
use crate::wire::reply::ImageUsageInfo;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger image prune --dry-run      what would go, what that frees, and why the rest stays
  banger image prune
  banger image prune --cache        what was kept of registries for later pulls

Names that no VM was made from go, but for the default image. Contents go with the last of their
names, and with them what work disks begin with and memories that VMs start from. Each removal is
an operation of its own, and looks again: an image that got a VM meanwhile stays. Images need nothing of the cache once they are made; without
it later pulls fetch all of their layers.";

/// Delete images that no VM uses
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Print what would go and why the rest stays, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: print JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// Empty the cache of registries instead
    #[arg(long)]
    cache: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    if args.cache {
        return match args.dry_run {
            true => cache::would_empty(app, args.json).await,
            false => cache::empty(app).await,
        };
    }
    let op = app.op(None)?;
    let usage = app.client().await?.image_usage(op).await?;
    let going: Vec<String> = usage.iter().flat_map(names).collect();
    let frees = text::size(usage.iter().map(would_free).sum());
    if args.dry_run {
        if args.json {
            app.out.json(&usage)?;
        } else {
            print(app, &usage)?;
            app.out.note(format!("{} would go, which frees {frees}", count(going.len())));
        }
        return Ok(Exit::Ok);
    }
    if going.is_empty() {
        app.out.note("nothing to remove; `banger image prune --dry-run` tells why");
        return Ok(Exit::Ok);
    }
    let request = |name| Request::DeleteImage { name };
    let exit = many::each(app, &going, Noun::Artefact, OnInterrupt::Leave, request).await?;
    if exit == Exit::Ok {
        app.out.note(format!("{} removed, {frees} freed", count(going.len())));
    }
    Ok(exit)
}

fn names(one: &ImageUsageInfo) -> Vec<String> {
    let going = one.names.iter().filter(|name| name.kept_because.is_none());
    going.map(|name| name.name.clone()).collect()
}

fn count(names: usize) -> String {
    if names == 1 { "1 name".to_owned() } else { format!("{names} names") }
}

fn print(app: &App, usage: &[ImageUsageInfo]) -> Result<(), CliError> {
    let mut table = Table::new(["NAME", "WHAT", "FREES", "WHY"]);
    for one in usage {
        let frees = would_free(one);
        for (number, name) in one.names.iter().enumerate() {
            let last = number + 1 == one.names.len();
            let (what, bytes, why) = match &name.kept_because {
                Some(why) => ("stays", String::new(), why.clone()),
                None if frees == 0 => {
                    ("goes", text::size(0), "another name keeps its contents".to_owned())
                }
                None if !last => {
                    ("goes", text::size(0), "its contents go with the last".to_owned())
                }
                None => ("goes", text::size(frees), "no VM was made from it".to_owned()),
            };
            table.row([name.name.as_str().into(), what.into(), bytes.into(), why.into()]);
        }
    }
    table.print(&app.out)
}
