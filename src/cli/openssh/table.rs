//! What OpenSSH is told, in its own words. Pure.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::places::DOMAIN;

/// The file that is included: all names below `.vm` are reached through `banger`, which tells ssh
/// the keys as well. First matches win in ssh's files, so what is said here holds.
pub(crate) fn settings(banger: &Path, socket: Option<&Path>, of_hosts: &Path) -> Vec<u8> {
    let mut proxy = shell_word(banger);
    if let Some(socket) = socket {
        proxy.extend(b" --socket ");
        proxy.extend(shell_word(socket));
    }
    let in_host = |name: &str| {
        // ssh writes the host's name for %h, and % for two of them.
        let dir = percent_doubled(of_hosts.as_os_str().as_bytes());
        [b"\"".as_slice(), &dir, b"/%h/", name.as_bytes(), b"\""].concat()
    };
    let lines: [(&str, Vec<u8>); 10] = [
        ("User", b"root".to_vec()),
        ("ProxyCommand", [&percent_doubled(&proxy), b" ssh-proxy %h".as_slice()].concat()),
        ("IdentityFile", in_host(KEY)),
        ("IdentitiesOnly", b"yes".to_vec()),
        ("PreferredAuthentications", b"publickey".to_vec()),
        ("UserKnownHostsFile", in_host(KNOWN_HOSTS)),
        ("GlobalKnownHostsFile", b"none".to_vec()),
        ("StrictHostKeyChecking", b"yes".to_vec()),
        ("UpdateHostKeys", b"no".to_vec()),
        ("HostKeyAlgorithms", b"ssh-ed25519".to_vec()),
    ];
    let mut text =
        b"# Written by `banger ssh-config --install`, and again by it: changes do not last.\n"
            .to_vec();
    // ssh reads keys before its proxy can have written them, but not before its own configuration.
    let prepare = [&percent_doubled(&proxy), b" ssh-proxy --prepare %h".as_slice()].concat();
    text.extend([b"Match host *.", DOMAIN.as_bytes(), b" exec \"", &prepare, b"\"\n"].concat());
    text.extend([b"Host *.", DOMAIN.as_bytes(), b"\n"].concat());
    for (key, value) in lines {
        text.extend([b"    ", key.as_bytes(), b" ", &value, b"\n"].concat());
    }
    text
}

pub(super) const KEY: &str = "id_ed25519";
pub(super) const KNOWN_HOSTS: &str = "known_hosts";

/// A line of known_hosts. The name alone: how the guest is reached does not matter.
pub(crate) fn known_host(host: &str, key: &str) -> String {
    format!("{host} {}\n", key.trim())
}

/// As ssh reads a path with spaces in it.
pub(super) fn quoted(path: &Path) -> Vec<u8> {
    [b"\"", path.as_os_str().as_bytes(), b"\""].concat()
}

fn percent_doubled(bytes: &[u8]) -> Vec<u8> {
    let double = |byte: &u8| if *byte == b'%' { vec![b'%'; 2] } else { vec![*byte] };
    bytes.iter().flat_map(double).collect()
}

/// One word for the shell that runs a ProxyCommand.
fn shell_word(path: &Path) -> Vec<u8> {
    let mut word = vec![b'\''];
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'\'' => word.extend(br"'\''"),
            byte => word.push(*byte),
        }
    }
    word.push(b'\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_places_survive_ssh_and_its_shell() {
        let text = settings("/opt/my banger's".as_ref(), None, "/home/100%/s".as_ref());
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(r"ProxyCommand '/opt/my banger'\''s' ssh-proxy %h"), "{text}");
        let prepare = r#"Match host *.vm exec "'/opt/my banger'\''s' ssh-proxy --prepare %h""#;
        assert!(text.contains(prepare), "{text}");
        assert!(text.contains(r#"IdentityFile "/home/100%%/s/%h/id_ed25519""#), "{text}");
        let text = settings("/b".as_ref(), Some("/run/x y.sock".as_ref()), "/s".as_ref());
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("ProxyCommand '/b' --socket '/run/x y.sock' ssh-proxy %h"), "{text}");
        assert_eq!(known_host("web.vm", "ssh-ed25519 AAAA\n"), "web.vm ssh-ed25519 AAAA\n");
    }
}
