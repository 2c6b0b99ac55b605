//! Who may come in: the holder of any key of the config, as any user the guest has.

use russh::keys::PublicKey;

use crate::error::{AgentError, Result};

#[derive(Debug)]
pub(super) struct Keys(Vec<PublicKey>);

impl Keys {
    /// A line that does not parse is an error: a key silently left out locks its owner out.
    pub(super) fn parse(lines: &[String]) -> Result<Self> {
        let meaningful = lines
            .iter()
            .map(|line| line.trim())
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys = meaningful.map(|line| {
            PublicKey::from_openssh(line).map_err(|error| AgentError::Ssh {
                what: "read an authorized key",
                source: error.into(),
            })
        });
        keys.collect::<Result<_>>().map(Self)
    }

    pub(super) fn contains(&self, key: &PublicKey) -> bool {
        self.0.iter().any(|known| known.key_data() == key.key_data())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn a_key_is_known_whatever_its_comment() {
        let keys =
            Keys::parse(&[format!("{KEY} someone@somewhere"), "# a comment".into(), String::new()])
                .unwrap();
        assert!(keys.contains(&PublicKey::from_openssh(KEY).unwrap()));
        let other =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";
        assert!(!keys.contains(&PublicKey::from_openssh(other).unwrap()));
    }

    #[test]
    fn a_damaged_line_is_an_error() {
        assert!(Keys::parse(&["ssh-ed25519 AAAA".into()]).is_err());
    }
}
