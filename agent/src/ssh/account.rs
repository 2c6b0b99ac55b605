//! Users, from `/etc/passwd` and `/etc/group` themselves: a static libc has no name service.

use std::fs;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// All groups, the primary one first.
    pub(super) groups: Vec<u32>,
    pub(super) home: PathBuf,
    pub(super) shell: PathBuf,
}

impl Account {
    /// Root exists in every guest, even where the image has no `/etc/passwd`.
    pub(super) fn find(name: &str) -> Option<Self> {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let group = fs::read_to_string("/etc/group").unwrap_or_default();
        find_in(name, &passwd, &group).or_else(|| (name == "root").then(root))
    }

    /// Where its programs start: its home, if it has one.
    pub(super) fn directory(&self) -> PathBuf {
        if self.home.is_dir() { self.home.clone() } else { "/".into() }
    }
}

/// The process is this user's from now on.
///
/// # Safety
/// Only system calls: may run between fork and exec.
#[allow(unsafe_code, reason = "runs between fork and exec")]
pub(super) unsafe fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the groups are as many as are told.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setgid(gid))?;
        check(libc::setuid(uid))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// Of a user that the guest has.
pub(crate) fn home_of(name: &str) -> Option<PathBuf> {
    Account::find(name).map(|account| account.home)
}

fn root() -> Account {
    Account {
        name: "root".into(),
        uid: 0,
        gid: 0,
        groups: vec![0],
        home: "/root".into(),
        shell: "/bin/sh".into(),
    }
}

fn find_in(name: &str, passwd: &str, group: &str) -> Option<Account> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1)?;
    let shell = fields.next().unwrap_or_default().trim();
    let mut groups = vec![gid];
    groups.extend(groups_of(name, group).filter(|other| *other != gid));
    let or =
        |text: &str, default: &str| PathBuf::from(if text.is_empty() { default } else { text });
    Some(Account {
        name: name.to_owned(),
        uid,
        gid,
        groups,
        home: or(home, "/"),
        shell: or(shell, "/bin/sh"),
    })
}

fn groups_of<'a>(name: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|member| member.trim() == name).then_some(gid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000:Ann,,,:/home/ann:\nbad:x:no\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:ann,bob\nann:x:1000:ann\ndocker:x:998: ann\n";

    #[test]
    fn fields_and_groups_are_read() {
        let ann = find_in("ann", PASSWD, GROUP).unwrap();
        assert_eq!((ann.uid, ann.gid, ann.groups), (1000, 1000, vec![1000, 27, 998]));
        assert_eq!(ann.shell, PathBuf::from("/bin/sh"));
        let root = find_in("root", PASSWD, GROUP).unwrap();
        assert_eq!((root.home, root.shell), ("/root".into(), "/bin/bash".into()));
    }

    #[test]
    fn unknown_and_damaged_users_do_not_exist() {
        assert_eq!(find_in("bob", PASSWD, GROUP), None);
        assert_eq!(find_in("bad", PASSWD, GROUP), None);
        assert_eq!(find_in("", PASSWD, GROUP), None);
    }
}
