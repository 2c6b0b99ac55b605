//! Commands of a workspace run with the tools that it names, where the guest has mise to know them.

use std::path::{Path, PathBuf};

use banger_agent::contract::exec::{AGENT, UNDER_MISE};
use nix::unistd::{AccessFlags, access};

use super::environment::Environment;

/// Puts `mise exec` before a command that asks for it, or nothing.
pub(super) fn settle(argv: &mut Vec<String>, env: &Environment) {
    let [agent, verb, ..] = argv.as_slice() else { return };
    if agent != AGENT || verb != UNDER_MISE || argv.len() < 3 {
        return;
    }
    let command = argv.split_off(2);
    *argv = match find(env) {
        Some(mise) => {
            let mise = mise.to_string_lossy().into_owned();
            [mise, "exec".to_owned(), "--".to_owned()].into_iter().chain(command).collect()
        }
        None => command,
    };
}

/// In PATH, or where its own installer puts it.
fn find(env: &Environment) -> Option<PathBuf> {
    let runs = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    let in_path = env.find("mise".as_ref());
    let home = env.iter().find(|(name, _)| *name == "HOME").map(|(_, home)| home);
    let own = home.map(|home| Path::new(home).join(".local/bin/mise"));
    [Some(in_path), own].into_iter().flatten().find(|path| path.is_absolute() && runs(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn settled(argv: &[&str], env: &Environment) -> Vec<String> {
        let mut argv = argv.iter().map(|word| (*word).to_owned()).collect();
        settle(&mut argv, env);
        argv
    }

    #[test]
    fn a_command_runs_under_mise_if_there_is_one() {
        let home = std::env::temp_dir().join(format!("banger-mise-{}", std::process::id()));
        let mise = home.join(".local/bin/mise");
        let mut env = Environment::default();
        env.set("HOME", &home.to_string_lossy());
        env.set("PATH", "/nowhere");
        let asked = [AGENT, UNDER_MISE, "make", "a b"];
        assert_eq!(settled(&asked, &env), ["make", "a b"]);
        std::fs::create_dir_all(mise.parent().unwrap()).unwrap();
        std::fs::write(&mise, "").unwrap();
        assert_eq!(settled(&asked, &env), ["make", "a b"], "no program");
        std::fs::set_permissions(&mise, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = settled(&asked, &env);
        std::fs::remove_dir_all(&home).unwrap();
        assert_eq!(found, [&*mise.to_string_lossy(), "exec", "--", "make", "a b"]);
        assert_eq!(settled(&["make"], &env), ["make"]);
        assert_eq!(settled(&[AGENT, "sftp"], &env), [AGENT, "sftp"]);
    }
}
