//! Unix sockets that a VMM makes, and the paths that it is given.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::sleep;

use crate::model::Code;
use crate::ports::HostError;

/// A VMM makes its socket a few milliseconds after its start.
pub(super) const RETRY: Duration = Duration::from_millis(5);
/// sockaddr_un holds 108 bytes with the NUL (unix(7)).
const PATH_BYTES: usize = 107;

/// How long to wait is the caller's to decide.
pub(super) async fn connect_when_there(socket: &Path) -> Result<UnixStream, HostError> {
    use io::ErrorKind as K;
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            // Not made yet, or made and not listened on yet.
            Err(error) if matches!(error.kind(), K::NotFound | K::ConnectionRefused) => {
                sleep(RETRY).await;
            }
            Err(error) => {
                return Err(HostError::io("connect to", socket.display().to_string(), error));
            }
        }
    }
}

/// The path as text, for a VMM that does not share our working directory.
pub(super) fn plain_path(path: &Path) -> Result<String, HostError> {
    let text = path.to_str().filter(|_| path.is_absolute());
    text.map(str::to_owned).ok_or_else(|| {
        HostError::new(Code::Invalid, "use path", path.display().to_string())
            .because("it is not absolute or not UTF-8")
    })
}

/// The same for a socket. Too long a path is refused here, where it can be said by name.
pub(super) fn socket_path(path: &Path) -> Result<String, HostError> {
    let bytes = path.as_os_str().len();
    if bytes > PATH_BYTES {
        let why = format!("a socket's path has at most {PATH_BYTES} bytes, this has {bytes}");
        return Err(HostError::new(Code::Invalid, "use socket", path.display().to_string())
            .because(why)
            .hint("choose a shorter run directory"));
    }
    plain_path(path)
}
