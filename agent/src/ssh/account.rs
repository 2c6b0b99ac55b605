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
        let root = || (name == "root").then(root);
        find_in(name, &passwd, &group).or_else(root).or_else(|| said(name, &passwd, &group))
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

/// As images say who runs their program: `USER[:GROUP]`, either by name or by number, which need
/// not be known in the guest. A group that is named is the only one.
fn said(text: &str, passwd: &str, group: &str) -> Option<Account> {
    let (user, its_group) = match text.split_once(':') {
        Some((user, its_group)) => (user, Some(its_group)),
        None => (text, None),
    };
    let by_number = || {
        let uid: u32 = user.parse().ok()?;
        let line = passwd.lines().find(|line| number(line) == Some(uid));
        let known = line.and_then(|line| find_in(line.split(':').next()?, passwd, group));
        known.or_else(|| Some(nobody(user, uid)))
    };
    let known = find_in(user, passwd, group).or_else(|| (user == "root").then(root));
    let mut account = known.or_else(by_number)?;
    if let Some(its_group) = its_group {
        let line = group.lines().find(|line| line.split(':').next() == Some(its_group));
        account.gid = line.and_then(number).or_else(|| its_group.parse().ok())?;
        account.groups = vec![account.gid];
    }
    Some(account)
}

/// The third field: a user's or a group's number.
fn number(line: &str) -> Option<u32> {
    line.split(':').nth(2)?.parse().ok()
}

fn nobody(name: &str, uid: u32) -> Account {
    let (home, shell) = ("/".into(), "/bin/sh".into());
    Account { name: name.to_owned(), uid, gid: 0, groups: vec![0], home, shell }
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
    fn users_are_also_what_images_say() {
        let ids = |text: &str| {
            let account = said(text, PASSWD, GROUP)?;
            Some((account.name, account.uid, account.gid, account.groups))
        };
        let ann = |gid, groups: &[u32]| Some(("ann".to_owned(), 1000, gid, groups.to_vec()));
        assert_eq!(ids("1000"), ann(1000, &[1000, 27, 998]));
        assert_eq!(ids("ann:sudo"), ann(27, &[27]));
        assert_eq!(ids("1000:7"), ann(7, &[7]));
        assert_eq!(ids("65532"), Some(("65532".to_owned(), 65532, 0, vec![0])));
        assert_eq!(ids("4000:4001"), Some(("4000".to_owned(), 4000, 4001, vec![4001])));
        assert_eq!(ids("root:sudo").map(|root| root.2), Some(27));
        for unknown in ["bob", "ann:nogroup", "", ":", "-1", "4294967296"] {
            assert_eq!(ids(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn unknown_and_damaged_users_do_not_exist() {
        assert_eq!(find_in("bob", PASSWD, GROUP), None);
        assert_eq!(find_in("bad", PASSWD, GROUP), None);
        assert_eq!(find_in("", PASSWD, GROUP), None);
    }
}
