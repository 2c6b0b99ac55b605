//! `banger completion`: the script that asks this program for completions.

use clap_complete::env::{Bash, EnvCompleter, Fish, Powershell, Zsh};

use crate::cli::app::App;
use crate::cli::complete::VARIABLE;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

const AFTER: &str = "\
Examples:
  bash:        echo 'source <(banger completion bash)' >> ~/.bashrc
  zsh:         echo 'source <(banger completion zsh)' >> ~/.zshrc
  fish:        banger completion fish > ~/.config/fish/completions/banger.fish
  powershell:  banger completion powershell | Out-String | Invoke-Expression

Names of VMs, images, kernels and operations are asked of the daemon as you type.";

/// Print a script that completes banger's commands and names in your shell
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<Exit, CliError> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
        Shell::Powershell => &Powershell,
    };
    let mut script = vec![];
    shell
        .write_registration(VARIABLE, "banger", "banger", "banger", &mut script)
        .map_err(|error| CliError::from_error("write the script", &error))?;
    app.out.raw(&script)?;
    Ok(Exit::Ok)
}
