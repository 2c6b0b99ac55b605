//! A command's environment, from the weakest to the strongest: the account, the config, the
//! channel (`env` requests, the terminal), the exec request.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use nix::unistd::{AccessFlags, access};

use super::account::Account;

const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";

/// Variables by name; a later one replaces an earlier one.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment(Vec<(String, String)>);

impl Environment {
    pub(super) fn of(account: &Account) -> Self {
        let mut env = Self::default();
        env.set("HOME", &account.home.to_string_lossy());
        env.set("USER", &account.name);
        env.set("LOGNAME", &account.name);
        env.set("SHELL", &account.shell.to_string_lossy());
        env.set("PATH", if account.uid == 0 { ROOT_PATH } else { USER_PATH });
        env
    }

    /// A name or value that cannot be in an environment is passed over.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    pub(super) fn extend(&mut self, variables: &[(String, String)]) {
        for (name, value) in variables {
            self.set(name, value);
        }
    }

    /// Where PATH has the program; as it is, if it names a place itself or is nowhere to be found:
    /// then starting it tells what is wrong.
    pub(super) fn find(&self, program: &OsStr) -> PathBuf {
        let is_name = !program.is_empty() && !program.as_bytes().contains(&b'/');
        let path = self.0.iter().find(|(name, _)| is_name && name == "PATH");
        let dirs = path.into_iter().flat_map(|(_, path)| std::env::split_paths(path));
        let mut places = dirs.filter(|dir| dir.is_absolute()).map(|dir| dir.join(program));
        let found =
            places.find(|place| place.is_file() && access(place, AccessFlags::X_OK).is_ok());
        found.unwrap_or_else(|| program.into())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_where_path_has_it() {
        let mut env = Environment::default();
        env.set("PATH", "/nowhere:.:/etc:/usr/bin:/bin");
        let find = |program: &str| env.find(program.as_ref()).display().to_string();
        assert!(find("sh").ends_with("bin/sh"));
        assert_eq!(find("passwd"), "/usr/bin/passwd", "what cannot be executed is passed over");
        for as_it_is in ["./sh", "/bin/sh", "no-such-program", ""] {
            assert_eq!(find(as_it_is), as_it_is);
        }
    }

    #[test]
    fn the_later_wins_and_impossible_names_are_dropped() {
        let mut env = Environment::default();
        env.extend(&[("A".into(), "1".into()), ("B".into(), "2".into()), ("A".into(), "3".into())]);
        env.set("", "x");
        env.set("C=D", "x");
        env.set("E", "x\0y");
        assert_eq!(env.iter().collect::<Vec<_>>(), [("A", "3"), ("B", "2")]);
    }
}
