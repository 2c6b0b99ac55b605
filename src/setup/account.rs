//! The user who owns the VMs.

use nix::unistd::{Group, User};

use super::error::SetupError;
use super::systemd::run;

/// By what an account that was made for banger alone is known, whatever became of the records.
const COMMENT: &str = "owner of banger's VMs";
/// Who may open `/dev/kvm`, on most distributions.
const KVM: &str = "kvm";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// One that does not exist yet, for what is not written.
    pub(super) fn unknown(name: &str) -> Self {
        Self { name: name.to_owned(), uid: u32::MAX, gid: u32::MAX }
    }
}

/// `None`: there is none of that name.
pub(super) fn find(name: &str) -> Result<Option<Account>, SetupError> {
    let failed =
        |error: nix::Error| SetupError::refused(format!("look up the user {name}: {error}"));
    let Some(user) = User::from_name(name).map_err(failed)? else { return Ok(None) };
    if user.uid.is_root() {
        let refused = SetupError::refused("the owner must not be root: the daemon never is");
        return Err(refused.hint("name an ordinary user, or one that is to be made: banger"));
    }
    Ok(Some(Account { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

/// A user of the system without a password, a shell or a directory of its own. With ids of its own
/// for user namespaces, in which images are built.
pub(super) fn make(name: &str, home: &str) -> Result<Account, SetupError> {
    let mut words = vec!["--system", "--add-subids-for-system", "--comment", COMMENT];
    words.extend(["--home-dir", home, "--shell", "/usr/sbin/nologin", name]);
    run("useradd", &words)?;
    find(name)?.ok_or_else(|| SetupError::refused(format!("useradd made no user {name}")))
}

/// The account with this uid, if it was made for banger.
pub(super) fn made(uid: u32) -> Option<String> {
    let user = User::from_uid(uid.into()).ok().flatten()?;
    (user.gecos.to_bytes() == COMMENT.as_bytes()).then_some(user.name)
}

pub(super) fn remove(name: &str) -> Result<(), SetupError> {
    run("userdel", &[name]).map(drop)
}

/// Groups that the daemon needs besides the owner's own.
pub(super) fn groups() -> Vec<String> {
    let there = matches!(Group::from_name(KVM), Ok(Some(_)));
    there.then(|| KVM.to_owned()).into_iter().collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Somebody who exists and is not root; root can give them things, others only to themselves.
    pub(in crate::setup) fn somebody() -> String {
        let me = nix::unistd::geteuid();
        let user = if me.is_root() { User::from_name("nobody") } else { User::from_uid(me) };
        user.unwrap().unwrap().name
    }

    #[test]
    fn root_owns_no_vms() {
        assert!(find("root").unwrap_err().way_out().is_some());
        assert_eq!(find(&somebody()).unwrap().unwrap().name, somebody());
        assert_eq!(find("nobody-of-this-name").unwrap(), None);
    }
}
