//! What `image prune` and `kernel prune` have in common: names that no VM needs go, and each that
//! stays says why.

use serde::Serialize;

use super::many::{self, Noun};
use crate::cli::app::App;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::OnInterrupt;
use crate::cli::ui::table::Table;
use crate::cli::ui::text;
use crate::wire::reply::{ImageNameInfo, ImageUsageInfo, KernelUsageInfo};
use crate::wire::request::Request;

#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Print what would go and why the rest stays, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// With --dry-run: print JSON
    #[arg(long, requires = "dry_run")]
    pub(crate) json: bool,
}

/// What contents take, and under which names they are known.
pub(crate) trait Usage: Serialize {
    /// What is pruned by this word: `banger WHAT prune`.
    const WHAT: &'static str;
    fn names(&self) -> &[ImageNameInfo];
    fn bytes(&self) -> u64;
    fn delete(name: String) -> Request;

    /// Contents go with the last of their names.
    fn would_free(&self) -> u64 {
        let kept = self.names().iter().any(|name| name.kept_because.is_some());
        if kept { 0 } else { self.bytes() }
    }
}

impl Usage for ImageUsageInfo {
    const WHAT: &'static str = "image";
    fn names(&self) -> &[ImageNameInfo] {
        &self.names
    }
    fn bytes(&self) -> u64 {
        self.file_bytes + self.seed_bytes + self.snapshot_bytes
    }
    fn delete(name: String) -> Request {
        Request::DeleteImage { name }
    }
}

impl Usage for KernelUsageInfo {
    const WHAT: &'static str = "kernel";
    fn names(&self) -> &[ImageNameInfo] {
        &self.names
    }
    fn bytes(&self) -> u64 {
        self.file_bytes + self.initrd_bytes
    }
    fn delete(name: String) -> Request {
        Request::DeleteKernel { name }
    }
}

pub(crate) async fn run<U: Usage>(
    app: &App,
    args: &PruneArgs,
    usage: &[U],
) -> Result<Exit, CliError> {
    let going: Vec<String> = usage.iter().flat_map(going).collect();
    let frees = text::size(usage.iter().map(U::would_free).sum());
    if args.dry_run {
        if args.json {
            app.out.json(&usage)?;
        } else {
            print(app, usage)?;
            app.out.note(format!("{} would go, which frees {frees}", count(going.len())));
        }
        return Ok(Exit::Ok);
    }
    if going.is_empty() {
        let what = U::WHAT;
        app.out.note(format!("nothing to remove; `banger {what} prune --dry-run` tells why"));
        return Ok(Exit::Ok);
    }
    let exit = many::each(app, &going, Noun::Artefact, OnInterrupt::Leave, U::delete).await?;
    if exit == Exit::Ok {
        app.out.note(format!("{} removed, {frees} freed", count(going.len())));
    }
    Ok(exit)
}

fn going<U: Usage>(one: &U) -> Vec<String> {
    let going = one.names().iter().filter(|name| name.kept_because.is_none());
    going.map(|name| name.name.clone()).collect()
}

fn count(names: usize) -> String {
    if names == 1 { "1 name".to_owned() } else { format!("{names} names") }
}

fn print<U: Usage>(app: &App, usage: &[U]) -> Result<(), CliError> {
    let mut table = Table::new(["NAME", "WHAT", "FREES", "WHY"]);
    for one in usage {
        let frees = one.would_free();
        for (number, name) in one.names().iter().enumerate() {
            let last = number + 1 == one.names().len();
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
