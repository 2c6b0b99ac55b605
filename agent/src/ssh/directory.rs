//! Where a program starts. It goes there by itself, as its user: the server may enter what the user
//! may not, and a program in such a place could neither name it nor open what is in it.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;

use super::account::Account;

/// A number is all that is told of what fails before a program runs. This much above the system's it
/// is that of the directory.
const NOT_ENTERED: i32 = 1 << 16;

#[derive(Clone, Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    bytes: CString,
    /// By the client: then there is no other.
    is_asked_for: bool,
}

impl Directory {
    /// The user's own, or `/` if it cannot be entered.
    pub(super) fn home(account: &Account) -> Self {
        let bytes = CString::new(account.home.as_os_str().as_bytes()).unwrap_or_default();
        Self { path: account.directory(), bytes, is_asked_for: false }
    }

    /// An error is why not, as far as the server can tell.
    pub(super) fn asked_for(path: &str) -> Result<Self, String> {
        let told = |why: &str| format!("{path}: {why}");
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(told("not a directory")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(told("no such directory"));
            }
            Err(error) => return Err(told(&error.to_string())),
        }
        let bytes = CString::new(path).map_err(|_| told("no such directory"))?;
        Ok(Self { path: path.into(), bytes, is_asked_for: true })
    }

    /// For whoever starts a program with its own rights, which reach everywhere.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// This process is there from now on.
    ///
    /// # Safety
    /// Only system calls on memory made before: may run between fork and exec.
    #[allow(unsafe_code, reason = "runs between fork and exec")]
    pub(super) unsafe fn enter(&self) -> io::Result<()> {
        // SAFETY: both strings end in a NUL.
        unsafe {
            if libc::chdir(self.bytes.as_ptr()) == 0
                || !self.is_asked_for && libc::chdir(c"/".as_ptr()) == 0
            {
                return Ok(());
            }
        }
        Err(io::Error::from_raw_os_error(NOT_ENTERED + Errno::last_raw()))
    }

    /// In words, if it is the directory that kept a program from starting.
    pub(crate) fn why_not(&self, error: &io::Error) -> Option<String> {
        let code = error.raw_os_error()?.checked_sub(NOT_ENTERED).filter(|code| *code > 0)?;
        let path = self.bytes.to_bytes();
        let path = Path::new(OsStr::from_bytes(path)).display();
        Some(format!("{path}: {}", Errno::from_raw(code).desc()))
    }
}
