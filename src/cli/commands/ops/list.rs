//! `banger ops list`.

use crate::cli::app::App;
use crate::cli::clock;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::ui::table::{Cell, Table};
use crate::cli::ui::text;
use crate::wire::request::Request;

/// List operations, the newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many at most
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    limit: u32,
    /// All that the daemon remembers
    #[arg(long, short, conflicts_with = "limit")]
    all: bool,
    /// Those that have not ended
    #[arg(long, conflicts_with_all = ["limit", "all"])]
    open: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let mut client = app.client().await?;
    let request = match args.open {
        true => Request::ListOpenOps,
        false => Request::ListOps { limit: if args.all { u32::MAX } else { args.limit } },
    };
    let ops = client.ops(op, request).await?;
    if args.json {
        app.out.json(&ops)?;
    } else if app.out.quiet {
        ops.iter().try_for_each(|op| app.out.line(&op.id))?;
    } else {
        let now = clock::unix_ms();
        let mut table = Table::new(["ID", "KIND", "SUBJECT", "OUTCOME", "TOOK", "STARTED"]);
        for op in &ops {
            let took = op.ended_unix_ms.map(|end| text::elapsed_between(op.started_unix_ms, end));
            table.row([
                op.id.as_str().into(),
                op.kind.as_str().into(),
                op.subject.as_str().into(),
                Cell::styled(op.outcome.as_str(), text::state_style(&op.outcome)),
                took.unwrap_or_default().into(),
                text::ago(now, op.started_unix_ms).into(),
            ]);
        }
        table.print(&app.out)?;
    }
    Ok(Exit::Ok)
}
