//! Who this guest is: host name, machine id, and whose keys open it. Runs after the change of
//! root, so that links in `/etc` mean what the image means by them.
//!
//! What must not be done here: nothing of the user's is thrown away. Our lines live between two
//! marks and only they are replaced.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use banger_agent::contract::config::GuestConfig;
use nix::unistd::sethostname;

use crate::error::{Context as _, Result};

const BEGIN: &str = "# banger begin";
const END: &str = "# banger end";

pub(super) fn apply(config: &GuestConfig) -> Result<()> {
    sethostname(&config.hostname).context(|| format!("set host name {}", config.hostname))?;
    write_if_changed("/etc/hostname", &format!("{}\n", config.hostname))?;
    write_if_changed("/etc/machine-id", &format!("{:032x}\n", u128::from_be_bytes(config.vm_id)))?;
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    write_if_changed("/etc/hosts", &with_block(&without_localhost(&hosts), &host_lines(config)))?;
    authorise(&config.authorized_keys)
}

fn host_lines(config: &GuestConfig) -> String {
    let mut lines = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    let name = &config.hostname;
    let _ = match &config.net {
        Some(net) => match &net.search {
            Some(search) => writeln!(lines, "{} {name}.{search} {name}", net.address),
            None => writeln!(lines, "{} {name}", net.address),
        },
        None => writeln!(lines, "127.0.1.1 {name}"),
    };
    lines
}

/// An image's own lines for localhost would only repeat ours.
fn without_localhost(hosts: &str) -> String {
    let is_plain = |line: &&str| {
        let mut words = line.split_ascii_whitespace();
        matches!(words.next(), Some("127.0.0.1" | "::1"))
            && words.all(|word| word.contains("localhost"))
    };
    hosts.lines().filter(|line| !is_plain(line)).flat_map(|line| [line, "\n"]).collect()
}

fn authorise(keys: &[String]) -> Result<()> {
    let dir = Path::new("/root/.ssh");
    let file = dir.join("authorized_keys");
    let all = keys.iter().flat_map(|key| [key.trim(), "\n"]).collect::<String>();
    fs::create_dir_all(dir).context(|| format!("make {}", dir.display()))?;
    fs::set_permissions(dir, PermissionsExt::from_mode(0o700))
        .context(|| format!("set mode of {}", dir.display()))?;
    let present = fs::read_to_string(&file).unwrap_or_default();
    write_if_changed(&file, &with_block(&present, &all))?;
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600))
        .context(|| format!("set mode of {}", file.display()))
}

/// `text` with our marked block at its end, in place of an earlier one.
fn with_block(text: &str, lines: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim() {
            BEGIN => inside = true,
            END if inside => inside = false,
            _ if inside => {}
            _ => out.extend([line, "\n"]),
        }
    }
    out.extend([BEGIN, "\n", lines, END, "\n"]);
    out
}

/// An unchanged file is not written again: the overlay would copy it up at each boot.
fn write_if_changed(path: impl AsRef<Path>, content: &str) -> Result<()> {
    let path = path.as_ref();
    if fs::read(path).is_ok_and(|present| present == content.as_bytes()) {
        return Ok(());
    }
    fs::write(path, content).context(|| format!("write {}", path.display()))
}

/// A regular file in place of whatever is there. Images have a link to a resolver that is not
/// running, or a bind mount's remains.
pub(super) fn replace_file(path: &Path, content: &str) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_file() => fs::remove_file(path)?,
        Ok(_) if fs::read(path).is_ok_and(|present| present == content.as_bytes()) => return Ok(()),
        _ => {}
    }
    fs::write(path, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_replaced_and_the_rest_kept() {
        let first = with_block("ssh-ed25519 AAAA user\n", "key one\n");
        assert_eq!(first, "ssh-ed25519 AAAA user\n# banger begin\nkey one\n# banger end\n");
        assert_eq!(with_block(&first, "key two\n"), first.replace("one", "two"));
        assert_eq!(with_block("", ""), "# banger begin\n# banger end\n");
        assert_eq!(
            with_block("no newline", "x\n"),
            "no newline\n# banger begin\nx\n# banger end\n"
        );
    }

    #[test]
    fn an_unfinished_block_does_not_double() {
        let cut = "mine\n# banger begin\nold\n";
        assert_eq!(with_block(cut, "new\n"), "mine\n# banger begin\nnew\n# banger end\n");
    }

    #[test]
    fn only_the_images_plain_localhost_lines_go() {
        let hosts =
            "127.0.0.1\tlocalhost\n::1 localhost ip6-localhost\n10.0.0.1 db\n127.0.0.1 app.test\n";
        assert_eq!(without_localhost(hosts), "10.0.0.1 db\n127.0.0.1 app.test\n");
    }

    #[test]
    fn a_link_is_replaced_by_a_file() {
        let dir = std::env::temp_dir().join(format!("banger-identity-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("resolv.conf");
        std::os::unix::fs::symlink("/nowhere/at/all", &path).unwrap();
        replace_file(&path, "nameserver 1.1.1.1\n").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 1.1.1.1\n");
        fs::remove_dir_all(&dir).unwrap();
    }
}
