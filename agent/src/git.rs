//! Who commits with git in this guest: the owner of the host, unless somebody says otherwise. Of the
//! user's own configuration a marked block at the top is the agent's; what follows it has the last word.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::standard::standard;

const BEGIN: &str = "# >>> banger: who the owner of the host is";
const END: &str = "# <<< banger";
const MAX_BYTES: u64 = 4096;

/// Name and address come on standard input, a NUL between them.
pub(crate) fn run() -> ExitCode {
    let mut said = String::new();
    let done = (&*standard(0)).take(MAX_BYTES).read_to_string(&mut said).and_then(|_| {
        let home = std::env::var_os("HOME").map(PathBuf::from).ok_or(io::ErrorKind::NotFound)?;
        let (name, address) = said.split_once('\0').ok_or(io::ErrorKind::InvalidData)?;
        write(&home.join(".gitconfig"), name, address)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "git identity: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn write(path: &Path, name: &str, address: &str) -> io::Result<()> {
    let old = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
        old => old?,
    };
    let new = with(&old, name, address);
    if new == old {
        return Ok(());
    }
    let beside = path.with_extension("banger-new");
    fs::write(&beside, new)?;
    if let Ok(meta) = fs::metadata(path) {
        fs::set_permissions(&beside, meta.permissions())?;
    }
    fs::rename(beside, path)
}

fn with(old: &[u8], name: &str, address: &str) -> Vec<u8> {
    let block = format!(
        "{BEGIN}\n[user]\n\tname = {}\n\temail = {}\n{END}\n",
        quoted(name),
        quoted(address)
    );
    [block.as_bytes(), without(old)].concat()
}

/// What follows the block, if it is at the top; else all.
fn without(old: &[u8]) -> &[u8] {
    let end = format!("{END}\n");
    let at = old.windows(end.len()).position(|window| window == end.as_bytes());
    match at.filter(|_| old.starts_with(BEGIN.as_bytes())) {
        Some(at) => old.get(at + end.len()..).unwrap_or_default(),
        None => old,
    }
}

/// As git reads it: in quotes, so that # and ; are no comments.
fn quoted(text: &str) -> String {
    let line: String = text.chars().filter(|c| !c.is_control()).collect();
    format!("\"{}\"", line.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_renewed_and_what_follows_it_stays() {
        let first = with(b"", "Ann \"A\" B", "a@b");
        let text = String::from_utf8(first.clone()).unwrap();
        assert!(text.contains("\tname = \"Ann \\\"A\\\" B\"\n\temail = \"a@b\"\n"), "{text}");
        assert_eq!(with(&first, "Ann \"A\" B", "a@b"), first);
        let own = b"[user]\n\tname = Me\n".as_slice();
        let both = with(own, "Ann", "a@b");
        assert!(both.ends_with(own));
        let renewed = with(&both, "Bob", "b@b");
        assert!(renewed.ends_with(own) && String::from_utf8_lossy(&renewed).contains("Bob"));
        assert!(!String::from_utf8_lossy(&renewed).contains("Ann"));
    }
}
