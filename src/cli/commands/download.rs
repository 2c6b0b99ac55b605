//! What the daemon downloads: pulls, and bundles from a URL.

use std::path::PathBuf;

use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::commands::parse;
use crate::cli::error::CliError;
use crate::cli::operation::{self, Ended, OnInterrupt};
use crate::cli::ui::progress::Progress;
use crate::model::Digest;
use crate::wire::request::Request;

/// How often in a row a daemon may go away under a download.
const RESTARTS: usize = 8;

/// Begins again what a restart of the daemon cut short; it goes on where it was.
pub(crate) async fn run(
    app: &App,
    client: &mut Client,
    named: &str,
    request: &Request,
) -> Result<Ended, CliError> {
    let board = Progress::new(&app.out);
    let mut track = board.track(None);
    let mut left = RESTARTS;
    loop {
        let op = app.op(Some(named))?;
        let ended = operation::run(client, op, request, &mut track, OnInterrupt::Withdraw).await;
        let broken = match ended {
            Ok(ended) => return Ok(ended),
            Err(broken) => broken,
        };
        let cut_short = broken.error.code.as_deref() == Some("interrupted");
        if !cut_short || broken.interrupted || left == 0 {
            return Err(CliError::from(broken).about(named));
        }
        left -= 1;
        track.note("the daemon was restarted; the download goes on where it was");
    }
}

/// Where a bundle is, as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Absolute.
    Path(PathBuf),
    Url {
        url: String,
        sha256: [u8; 32],
    },
}

/// A URL says where something is, and its digest what it is: one does not do without the other.
pub(crate) fn place(path: PathBuf, sha256: Option<Digest>) -> Result<Place, CliError> {
    let url = path.to_str().filter(|text| text.contains("://"));
    match (url, sha256) {
        (Some(url), Some(sha256)) => Ok(Place::Url { url: url.to_owned(), sha256: sha256.0 }),
        (Some(_), None) => {
            let failure = CliError::usage("a URL needs --sha256: the digest decides what comes");
            Err(failure.hint("whoever has the file there says its digest; `sha256sum FILE` does"))
        }
        (None, Some(_)) => Err(CliError::usage("--sha256 is for a URL; a bundle says its own")),
        (None, None) => parse::absolute(&path).map(Place::Path),
    }
}
