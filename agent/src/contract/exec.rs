//! A program with its arguments unsplit, inside the request string of SSH's `exec`.
//!
//! A plain exec string goes to the user's shell, as OpenSSH's server does it. One that starts
//! with [`MARK`] carries an [`ExecRequest`]: the program is run without a shell, and failures to
//! start it are told by exit status 126 (not executable) and 127 (not found). No shell command
//! can begin with a NUL byte, so the two never collide.

use super::codec::{self, CodecError, Decode, Encode};

pub const MARK: &[u8] = b"\0banger\0";

/// Instead of a program: the agent itself, with what is asked of it as arguments (see the modules
/// that name it). It is looked up nowhere else. An agent that is older than the name answers as for
/// any program that is not there, and one that is older than the argument with its usage, status 2.
pub const AGENT: &str = "@agent";
/// As [`AGENT`]'s first argument: a command follows, which runs under `mise exec` if the guest has
/// mise, else as it is.
pub const UNDER_MISE: &str = "mise";
/// As [`AGENT`]'s only argument: nothing. That it could be started tells that its user may enter the
/// directory; an agent that is older than the word starts as well.
pub const NOTHING: &str = "nothing";

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExecRequest {
    /// The program and its arguments; a program without a slash is looked up in PATH.
    pub argv: Vec<String>,
    /// Set last, over the guest's own and the channel's.
    pub env: Vec<(String, String)>,
    /// Instead of the user's home. If it cannot be entered, the command does not run (126).
    pub cwd: Option<String>,
    pub op_id: [u8; 16],
}

#[derive(Encode, Decode)]
enum Payload {
    V1(ExecRequest),
}

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("exec request")]
    Payload(#[source] CodecError),
    #[error("exec request without a program")]
    NoProgram,
}

/// The bytes of the SSH exec request.
pub fn encode(request: &ExecRequest) -> Result<Vec<u8>, ExecError> {
    if request.argv.is_empty() {
        return Err(ExecError::NoProgram);
    }
    let payload = codec::encode(&Payload::V1(request.clone())).map_err(ExecError::Payload)?;
    Ok([MARK, &payload].concat())
}

/// `None`: an ordinary command line for the shell.
pub fn decode(bytes: &[u8]) -> Result<Option<ExecRequest>, ExecError> {
    let Some(payload) = bytes.strip_prefix(MARK) else {
        return Ok(None);
    };
    let Payload::V1(request) = codec::decode(payload).map_err(ExecError::Payload)?;
    if request.argv.is_empty() {
        return Err(ExecError::NoProgram);
    }
    Ok(Some(request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argv_arrives_unsplit_and_shell_lines_are_left_alone() {
        let request = ExecRequest {
            argv: vec![
                "printf".into(),
                "%s|".into(),
                "a b".into(),
                String::new(),
                "$x 'é'\n".into(),
            ],
            env: vec![("A".into(), "b c".into())],
            cwd: Some("/root/repo".into()),
            op_id: [7; 16],
        };
        let bytes = encode(&request).unwrap();
        assert_eq!(decode(&bytes).unwrap(), Some(request));
        assert_eq!(decode(b"ls -l").unwrap(), None);
        assert_eq!(decode(b"").unwrap(), None);
    }

    #[test]
    fn an_empty_or_damaged_request_is_refused() {
        let empty = ExecRequest { argv: vec![], env: vec![], cwd: None, op_id: [0; 16] };
        assert!(matches!(encode(&empty), Err(ExecError::NoProgram)));
        assert!(matches!(decode(MARK), Err(ExecError::Payload(_))));
        assert!(matches!(decode(b"\0banger\0\x00\xfd\xff"), Err(ExecError::Payload(_))));
    }
}
