//! Options of the commands that enter a guest.

use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::guest::TtyChoice;

#[derive(Debug, clap::Args)]
pub(crate) struct TtyArgs {
    /// Give the command a terminal [default: if stdin and stdout are terminals]
    #[arg(long, short, overrides_with = "no_tty")]
    tty: bool,
    /// Give it none; its stdout and stderr stay apart
    #[arg(long, short = 'T', overrides_with = "tty")]
    no_tty: bool,
}

impl TtyArgs {
    pub(crate) fn choice(&self) -> TtyChoice {
        TtyChoice::from_flags(self.tty, self.no_tty)
    }
}

/// Leaving a VM does not stop it, which is easily forgotten. Said only of a VM that was looked at.
pub(super) async fn note_if_running(app: &App, mut client: Client, vm_id: &str) {
    if app.out.quiet {
        return;
    }
    let Ok(op) = app.op(None) else { return };
    let mut seen = client.vm(op, vm_id).await;
    if seen.is_err() && client.reconnect().await.is_ok() {
        seen = client.vm(op, vm_id).await; // The daemon may have been restarted meanwhile.
    }
    match seen {
        Ok(vm) if vm.state == "running" => {
            let name = vm.name;
            app.out.note(format!("{name} still runs; stop it with `banger vm stop {name}`"));
        }
        Ok(_) | Err(_) => {}
    }
}
