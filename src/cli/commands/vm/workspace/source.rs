//! What of a repository is to go where: options, and the way there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::guest::{Guest, explain};
use crate::cli::manifests;
use crate::host::workspace::{Plan, PlanOptions, Prepared, Repository, WorkspaceError};
use crate::model::{OpId, Selection, WorkspaceMode, show_path};
use crate::wire::reply::WorkspaceInfo;
use crate::wire::request::Workspace;

use super::tools;

pub(crate) const GUEST_PATH: &str = "/root/repo";
/// A file that is edited while it is sent is sent again; one that never rests is told of.
const TRIES: usize = 3;

#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct SourceArgs {
    /// Put the guest on a new branch of this name
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// Where that branch begins [default: HEAD]
    #[arg(long, value_name = "REVISION", requires = "branch")]
    from: Option<String>,
    /// Take along what git does not track either, except what it ignores
    #[arg(long)]
    include_untracked: bool,
    /// Leave out what fits, as in .gitignore; may be repeated. So does a file .bangerignore
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Take along what git ignores, where it fits; may be repeated
    #[arg(long, value_name = "GLOB")]
    include_ignored: Vec<String>,
    /// How much of the repository
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Mode {
    /// The history of HEAD
    #[default]
    Shallow,
    /// All branches and tags, and the files of submodules
    #[value(name = "full_copy", alias = "full-copy")]
    FullCopy,
}

impl SourceArgs {
    /// Whether anything was said that means nothing without a repository.
    pub(crate) fn is_given(&self) -> bool {
        self.branch.is_some()
            || self.include_untracked
            || !self.exclude.is_empty()
            || !self.include_ignored.is_empty()
            || matches!(self.mode, Mode::FullCopy)
    }

    pub(crate) fn options(&self) -> PlanOptions {
        PlanOptions {
            mode: match self.mode {
                Mode::Shallow => WorkspaceMode::Shallow,
                Mode::FullCopy => WorkspaceMode::FullCopy,
            },
            selection: Selection {
                include_untracked: self.include_untracked,
                exclude: self.exclude.clone(),
                include_ignored: self.include_ignored.clone(),
            },
            branch: self.branch.clone(),
            from: self.from.clone(),
            last: None,
        }
    }
}

/// One repository on its way into one VM.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) path: PathBuf,
    pub(crate) guest_path: String,
    pub(crate) options: PlanOptions,
    pub(crate) discard: bool,
}

/// What went there the last time.
#[derive(Debug)]
pub(crate) struct Last {
    guest_path: String,
    manifest: Vec<u8>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) plan: Arc<Plan>,
    pub(crate) prepared: Prepared,
}

impl Job {
    /// As it was prepared before.
    pub(crate) fn again(info: &WorkspaceInfo) -> Self {
        let mode = match info.mode.as_str() {
            "full_copy" => WorkspaceMode::FullCopy,
            _ => WorkspaceMode::Shallow,
        };
        let selection = selection(info);
        let options = PlanOptions { mode, selection, ..PlanOptions::default() };
        let (path, guest_path) = (PathBuf::from(&info.host_path), info.guest_path.clone());
        Self { path, guest_path, options, discard: false }
    }

    /// What can be found out without any VM.
    pub(crate) fn plan(&self) -> Result<Plan, CliError> {
        crate::host::workspace::plan(&self.path, self.options.clone())
            .map_err(|error| explain("NAME", error))
    }

    /// Plans, unless that is done, sends, and has the daemon keep what was sent.
    pub(crate) async fn run(
        mut self,
        app: &App,
        client: &mut Client,
        op: OpId,
        vm: &str,
        mut planned: Option<Plan>,
    ) -> Result<Report, CliError> {
        check_guest_path(&self.guest_path)?;
        let last = self.last(client, op, vm).await;
        self.options.last = last.as_ref().map(|last| last.manifest.clone());
        let mut tries = 0;
        let (plan, prepared, vm_id) = loop {
            tries += 1;
            let plan = Arc::new(planned.take().map_or_else(|| self.plan(), Ok)?);
            let guest = Guest::dial(client, op, vm, true).await;
            let mut guest = guest.map_err(|error| error.about(vm))?;
            let mut changed = false;
            let sent = guest.converse(op, |stream| {
                let prepared = crate::host::workspace::prepare(
                    Arc::clone(&plan),
                    &self.guest_path,
                    self.discard,
                    stream,
                );
                async {
                    let prepared = prepared.await;
                    changed = matches!(prepared, Err(WorkspaceError::Changed { .. }));
                    prepared
                }
            });
            match sent.await {
                Err(_) if changed && tries < TRIES => {}
                sent => break (plan, sent?, guest.vm_id().to_owned()),
            }
        };
        let host_path = text(&plan.repository.root)?;
        let workspace = Workspace {
            guest_path: self.guest_path.clone(),
            host_path,
            head: plan.repository.head.clone(),
            branch: plan.branch.clone(),
            mode: plan.mode.as_str().to_owned(),
            include_untracked: plan.selection.include_untracked,
            exclude: plan.selection.exclude.clone(),
            include_ignored: plan.selection.include_ignored.clone(),
            files: prepared.files,
            bytes: prepared.bytes,
            manifest: prepared.manifest_digest.0,
        };
        client.record_workspace(op, vm, workspace, &prepared.manifest).await?;
        manifests::keep(&vm_id, &prepared.manifest);
        tools::trust(client, op, vm, &self.guest_path, &plan).await;
        notices(app, &plan);
        let removed = self.removed(&plan, last.as_ref());
        match plan.still_here(&removed).map_err(|error| explain(vm, error))? {
            0 => {}
            // A deletion here is no news; these are files that somebody may wait for there.
            here => {
                let files = files(here);
                app.out.note(format!(
                    "{files} sent before and left out now: gone in the guest, still here"
                ));
            }
        }
        Ok(Report { plan, prepared })
    }

    /// What is to go in the guest, if that is known.
    pub(crate) fn removed(&self, plan: &Plan, last: Option<&Last>) -> Vec<Vec<u8>> {
        let there = last.filter(|last| last.guest_path == self.guest_path);
        there.map_or_else(Vec::new, |last| plan.removed(&last.manifest))
    }

    /// What was sent the last time, if it was of the same repository. Only spares work.
    pub(crate) async fn last(&self, client: &mut Client, op: OpId, vm: &str) -> Option<Last> {
        let known = client.workspaces(op, vec![vm.to_owned()]).await.ok()?.pop()?;
        let root = Repository::find(&self.path).ok()?.root;
        if root != Path::new(&known.host_path) {
            return None;
        }
        let manifest = manifests::of(client, op, &known).await.ok()?;
        Some(Last { guest_path: known.guest_path, manifest })
    }
}

pub(crate) fn selection(info: &WorkspaceInfo) -> Selection {
    Selection {
        include_untracked: info.include_untracked,
        exclude: info.exclude.clone(),
        include_ignored: info.include_ignored.clone(),
    }
}

pub(crate) fn check_guest_path(path: &str) -> Result<(), CliError> {
    let plain = path.strip_prefix('/').map(str::as_bytes);
    match plain.is_some_and(banger_agent::contract::workspace::is_plain) {
        true => Ok(()),
        false => Err(CliError::usage(format!("{path:?} is no absolute path of plain names"))),
    }
}

/// Said where the user looks, once.
pub(crate) fn notices(app: &App, plan: &Plan) {
    if plan.untracked_left > 0 {
        let count = files(plan.untracked_left);
        app.out
            .note(format!("{count} not tracked by git left out; --include-untracked takes them"));
    }
    for path in &plan.nested {
        app.out.note(format!("{} is a repository of its own: left out", show_path(path)));
    }
    for path in &plan.absent {
        let path = show_path(path);
        app.out.note(format!(
            "nothing of the submodule {path} is here to be sent; git submodule update --init fetches it"
        ));
    }
    if plan.pointers > 0 {
        let count = files(plan.pointers);
        app.out.note(format!("{count} went as pointers of git-lfs; git lfs pull fetches them"));
    }
}

fn files(count: usize) -> String {
    match count {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    }
}

fn text(path: &Path) -> Result<String, CliError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| CliError::usage(format!("the path {path:?} is not UTF-8")))
}
