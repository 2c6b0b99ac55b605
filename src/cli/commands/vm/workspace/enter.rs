//! What a workspace means to a command: where it runs, under what, and a look at whether it is stale.

use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::guest::{Guest, ROOT, explain};
use crate::cli::manifests;
use crate::host::workspace::Compared;
use crate::model::{Digest, OpId, Staleness, Workspace, WorkspaceMode};
use crate::wire::reply::WorkspaceInfo;

use super::source::{Job, selection};

#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct WorkspaceArgs {
    /// The workspace to run it in [default: the one that was prepared]
    #[arg(long, value_name = "DIR")]
    guest_path: Option<String>,
    /// Bring the workspace up to date first; if that fails, the command does not run
    #[arg(long)]
    auto_prepare: bool,
    /// Run it only if the workspace is as the repository is now
    #[arg(long, conflicts_with = "auto_prepare")]
    require_clean: bool,
    /// Take no notice of a workspace: run it in the user's home, as it is
    #[arg(long, conflicts_with_all = ["guest_path", "auto_prepare", "require_clean"])]
    no_workspace: bool,
    /// Not under mise, though the guest has it
    #[arg(long)]
    no_mise: bool,
}

/// Where a command runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Entered {
    /// `None`: at home.
    pub(crate) directory: Option<String>,
    pub(crate) under_mise: bool,
    /// Nobody has named it: another will do.
    pub(crate) is_implied: bool,
}

impl Entered {
    pub(crate) fn argv(&self, command: Vec<String>) -> Vec<String> {
        use banger_agent::contract::exec::{AGENT, UNDER_MISE};
        match self.under_mise {
            true => [AGENT, UNDER_MISE].map(str::to_owned).into_iter().chain(command).collect(),
            false => command,
        }
    }

    /// Whoever may not enter a workspace that was not asked for is at home, and told.
    pub(crate) async fn of_user(
        self,
        app: &App,
        op: OpId,
        guest: &mut Guest,
        user: Option<&str>,
    ) -> Self {
        let user = user.filter(|user| self.is_implied && *user != ROOT);
        let (Some(user), Some(directory)) = (user, &self.directory) else { return self };
        if guest.may_enter(op, directory).await {
            return self;
        }
        app.out.note(format!(
            "{user} may not enter the workspace {directory}: the command runs in {user}'s home"
        ));
        Self::default()
    }
}

impl WorkspaceArgs {
    /// Warns of what is stale, in a line, or brings it up to date.
    pub(crate) async fn enter(
        &self,
        app: &App,
        client: &mut Client,
        op: OpId,
        vm: &str,
    ) -> Result<Entered, CliError> {
        if self.no_workspace {
            return Ok(Entered::default());
        }
        // A daemon of before knows of none.
        let known = client.workspaces(op, vec![vm.to_owned()]).await;
        let known = match known {
            Ok(mut known) => known.pop(),
            Err(error) if error.code.as_deref() == Some("not-found") => return Err(error),
            Err(_) => {
                client.reconnect().await?;
                None
            }
        };
        let Some(info) = known else {
            if self.auto_prepare || self.require_clean {
                let failure = CliError::failed(format!("{vm}: nothing was prepared in it"));
                return Err(failure.hint(format!("banger vm workspace prepare {vm} PATH")));
            }
            let directory = self.guest_path.clone();
            let under_mise = directory.is_some() && !self.no_mise;
            return Ok(Entered { directory, under_mise, is_implied: false });
        };
        let manifest = manifests::of(client, op, &info).await?;
        let stale = match look(&info, manifest).await {
            Ok(compared) => compared.staleness,
            Err(error) => Staleness::Unknown(error.message),
        };
        match stale {
            Staleness::Clean => {}
            stale if self.require_clean => {
                let failure = CliError::failed(format!("{vm}: the workspace is {stale}"));
                return Err(failure.hint(format!("banger vm workspace status {vm}")));
            }
            Staleness::Stale { .. } if self.auto_prepare => {
                Job::again(&info).run(app, client, op, vm, None).await?;
            }
            stale => {
                let again = match stale {
                    Staleness::Stale { .. } => "; --auto-prepare brings it up to date",
                    _ => "",
                };
                app.out
                    .note(format!("warning: the workspace {} is {stale}{again}", info.guest_path));
            }
        }
        let is_implied = self.guest_path.is_none();
        let directory = self.guest_path.clone().unwrap_or(info.guest_path);
        Ok(Entered { directory: Some(directory), under_mise: !self.no_mise, is_implied })
    }
}

/// The host's side of a workspace, held against what was sent.
pub(crate) async fn look(info: &WorkspaceInfo, manifest: Vec<u8>) -> Result<Compared, CliError> {
    let workspace = Workspace {
        guest_path: info.guest_path.clone(),
        host_path: info.host_path.clone(),
        head: info.head.clone(),
        branch: info.branch.clone(),
        mode: match info.mode.as_str() {
            "full_copy" => WorkspaceMode::FullCopy,
            _ => WorkspaceMode::Shallow,
        },
        selection: selection(info),
        files: info.files,
        bytes: info.bytes,
        manifest: info.manifest.parse().unwrap_or(Digest([0; 32])),
        prepared_unix_ms: info.prepared_unix_ms,
    };
    let look = move || crate::host::workspace::compare(&workspace, &manifest);
    match tokio::task::spawn_blocking(look).await {
        Ok(compared) => compared.map_err(|error| explain("NAME", error)),
        Err(error) => Err(CliError::from_error("compare the workspace", &error)),
    }
}
