//! A VM's keys: made by the host, so that the host key is known before the first boot and the
//! guest needs no entropy for it.

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::{self, LineEnding};
use russh::keys::{Algorithm, PrivateKey};

use crate::model::{Code, VmKeys};
use crate::ports::HostError;

/// Two fresh ed25519 pairs, in OpenSSH's text forms and without comments: a comment would tell
/// the guest where its key was made.
pub fn make_keys() -> Result<VmKeys, HostError> {
    let pair = |whose: &str| {
        make_pair()
            .map_err(|error| HostError::new(Code::Internal, "make key of", whose).because(error))
    };
    let (host_private, host_public) = pair("the guest")?;
    let (client_private, client_public) = pair("the client")?;
    Ok(VmKeys { host_private, host_public, client_private, client_public })
}

/// Private and public.
pub(super) fn make_pair() -> Result<(String, String), ssh_key::Error> {
    let private = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)?;
    let pem = private.to_openssh(LineEnding::LF)?.to_string();
    Ok((pem, private.public_key().to_openssh()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_openssh_and_belong_together() {
        let keys = make_keys().unwrap();
        for (private, public) in
            [(&keys.host_private, &keys.host_public), (&keys.client_private, &keys.client_public)]
        {
            assert!(private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"), "{public}");
            assert!(public.starts_with("ssh-ed25519 "), "{public}");
            let parsed = PrivateKey::from_openssh(private).unwrap();
            assert_eq!(&parsed.public_key().to_openssh().unwrap(), public);
        }
        assert_ne!(keys.host_public, keys.client_public);
        assert_ne!(make_keys().unwrap().host_public, keys.host_public);
    }
}
