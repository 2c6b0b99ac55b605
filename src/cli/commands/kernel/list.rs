//! `banger kernel list`.

use crate::cli::app::App;
use crate::cli::clock;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::ui::table::Table;
use crate::cli::ui::text;
use crate::wire::request::Request;

/// List kernels
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let op = app.op(None)?;
    let mut client = app.client().await?;
    let kernels = client.kernels(op, Request::ListKernels).await?;
    if args.json {
        app.out.json(&kernels)?;
    } else if app.out.quiet {
        kernels.iter().try_for_each(|kernel| app.out.line(&kernel.name))?;
    } else {
        let now = clock::unix_ms();
        let mut table = Table::new([
            "NAME", "DISTRO", "ARCH", "VERSION", "MODULES", "SIZE", "VMS", "SOURCE", "IMPORTED",
        ]);
        for kernel in &kernels {
            table.row([
                kernel.name.as_str().into(),
                kernel.distro.as_str().into(),
                kernel.arch.as_str().into(),
                kernel.version.as_str().into(),
                kernel.modules.to_string().into(),
                text::size(kernel.size_bytes).into(),
                kernel.used_by.len().to_string().into(),
                kernel.source.as_str().into(),
                text::ago(now, kernel.created_unix_ms).into(),
            ]);
        }
        table.print(&app.out)?;
    }
    Ok(Exit::Ok)
}
