//! Faults, planned by call.

use std::str::FromStr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::model::VmId;

/// Which calls a fault hits. Calls are named `port.method` and counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// The nth call of all.
    Call(usize),
    /// The nth call of all, and each after it.
    From(usize),
    /// The nth call of that name.
    Nth(String, usize),
    /// Every call of that name.
    Every(String),
}

#[derive(Clone, Debug)]
pub enum Fault {
    /// Refuses and changes nothing.
    Refuse,
    /// The disk is full; nothing is changed.
    NoSpace,
    /// Changes the host and then reports failure.
    HalfDone,
    /// A bug in the adapter.
    Panic,
    /// Somebody cancels the operation while this call runs; the call itself succeeds.
    Cancel(CancellationToken),
    /// Succeeds, late.
    Delay(Duration),
    /// Changes the host and then never answers.
    Hang,
    /// The daemon dies: no call after this one is done or answered. Whether this one is done.
    Die(bool),
    /// The VMM of this VM ends by itself just before.
    Ends(VmId),
}

impl At {
    pub(super) fn hits(&self, name: &str, call: usize, nth: usize) -> bool {
        match self {
            Self::Call(at) => call == *at,
            Self::From(at) => call >= *at,
            Self::Nth(wanted, at) => name == wanted && nth == *at,
            Self::Every(wanted) => name == wanted,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a fault; write port.method[:nth]=refuse|no-space|half-done|panic|hang|delay-ms:N"
)]
pub struct ParseFaultError(String);

/// One planned fault as text: `net.ensure_tap:0=refuse`, `guest.await_ready=hang`.
#[derive(Clone, Debug)]
pub struct Planned(pub At, pub Fault);

impl FromStr for Planned {
    type Err = ParseFaultError;

    fn from_str(text: &str) -> Result<Self, ParseFaultError> {
        let wrong = || ParseFaultError(text.to_owned());
        let (at, fault) = text.split_once('=').ok_or_else(wrong)?;
        let at = match at.split_once(':') {
            Some((name, nth)) => At::Nth(name.to_owned(), nth.parse().map_err(|_| wrong())?),
            None => At::Every(at.to_owned()),
        };
        let fault = match fault.split_once(':') {
            Some(("delay-ms", ms)) => {
                Fault::Delay(Duration::from_millis(ms.parse().map_err(|_| wrong())?))
            }
            Some(_) => return Err(wrong()),
            None => match fault {
                "refuse" => Fault::Refuse,
                "no-space" => Fault::NoSpace,
                "half-done" => Fault::HalfDone,
                "panic" => Fault::Panic,
                "hang" => Fault::Hang,
                _ => return Err(wrong()),
            },
        };
        Ok(Self(at, fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_written_as_text() {
        let Planned(at, fault) = "net.ensure_tap:2=refuse".parse().unwrap();
        assert_eq!(at, At::Nth("net.ensure_tap".to_owned(), 2));
        assert!(matches!(fault, Fault::Refuse));
        let Planned(at, fault) = "guest.await_ready=delay-ms:5".parse().unwrap();
        assert_eq!(at, At::Every("guest.await_ready".to_owned()));
        assert!(matches!(fault, Fault::Delay(delay) if delay.as_millis() == 5));
        for bad in ["", "x", "a.b=never", "a.b:x=hang", "a.b=delay-ms:x", "a.b=delay:1"] {
            assert!(bad.parse::<Planned>().is_err(), "{bad}");
        }
    }
}
