//! What the programs that images and kernels are made with have in common: what they say, and their end.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead};
use tokio::process::Child;

use crate::host::files::SYSTEM_PATH;
use crate::ports::ProgressSink;

/// How long a program gets to clean up after itself.
const GRACE: Duration = Duration::from_secs(15);

/// Environment by which users say how the network is reached.
pub(super) const PROXIES: [&str; 4] = ["http_proxy", "https_proxy", "no_proxy", "ftp_proxy"];

/// Whether this host has the program.
pub(super) fn in_path(program: &str) -> bool {
    SYSTEM_PATH.split(':').any(|dir| Path::new(dir).join(program).is_file())
}

/// Passes on what is worth it; gives back the last lines of all that was said.
pub(super) async fn tell(
    from: Option<impl AsyncRead + Unpin>,
    progress: ProgressSink,
    mut stage: impl FnMut(&str) -> Option<String>,
) -> Vec<String> {
    const KEPT: usize = 20;
    let mut last = VecDeque::with_capacity(KEPT);
    let Some(from) = from else { return vec![] };
    let mut lines = tokio::io::BufReader::new(from).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        let line = line.rsplit('\r').next().unwrap_or_default().trim_end();
        if line.is_empty() {
            continue;
        }
        if let Some(stage) = stage(line) {
            progress(stage);
        }
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(line.chars().take(500).collect::<String>());
    }
    last.into()
}

/// Asks first, the program and all that it started: only it can take away all that it made.
pub(super) async fn terminate(child: &mut Child) {
    signal(child, Signal::SIGTERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        signal(child, Signal::SIGKILL);
    }
}

fn signal(child: &Child, signal: Signal) {
    let group = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(group) = group {
        // Gone already is as good.
        let _ = killpg(Pid::from_raw(group), signal);
    }
}
