//! A program of a user's for those who start it without a client: with the environment that a client's
//! would have, in a process group of its own.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::account::{self, Account};
use super::directory::Directory;
use super::environment::Environment;

/// And where it starts, which can tell why it did not. An error is a status as a shell would give it,
/// and why. Standard streams are the caller's to set.
pub(crate) fn user_command(
    user: &str,
    argv: &[String],
    env: &[(String, String)],
    cwd: Option<&str>,
) -> Result<(Command, Directory), (u8, String)> {
    let account = Account::find(user).ok_or_else(|| (126, format!("{user}: no such user")))?;
    let mut all = Environment::of(&account);
    all.extend(env);
    let mut argv = argv.to_vec();
    super::mise::settle(&mut argv, &all);
    let (program, words) = argv.split_first().ok_or_else(|| (126, "no program".to_owned()))?;
    let directory = match cwd {
        Some(cwd) => Directory::asked_for(cwd).map_err(|why| (126, why))?,
        None => Directory::home(&account),
    };
    #[allow(clippy::disallowed_methods, reason = "what the client asked for")]
    let mut command = Command::new(all.find(program.as_ref()));
    command.arg0(program).args(words).env_clear().envs(all.iter()).process_group(0);
    if nix::unistd::geteuid().is_root() {
        let Account { uid, gid, groups, .. } = account;
        let entered = directory.clone();
        let become_user = move || {
            // SAFETY: between fork and exec only system calls are made, on memory made before.
            #[allow(unsafe_code, reason = "runs between fork and exec")]
            unsafe {
                account::become_user(uid, gid, &groups)?;
                entered.enter()
            }
        };
        // SAFETY: the closure makes only async-signal-safe calls.
        #[allow(unsafe_code, reason = "runs between fork and exec")]
        unsafe {
            command.pre_exec(become_user);
        }
    } else {
        command.current_dir(directory.path());
    }
    Ok((command, directory))
}
