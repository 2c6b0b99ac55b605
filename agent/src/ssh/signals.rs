//! Signals by the names SSH gives them, without `SIG`.

use nix::sys::signal::Signal;
use russh::Sig;

pub(super) fn from_ssh(signal: &Sig) -> Option<Signal> {
    match signal {
        Sig::ABRT => Some(Signal::SIGABRT),
        Sig::ALRM => Some(Signal::SIGALRM),
        Sig::FPE => Some(Signal::SIGFPE),
        Sig::HUP => Some(Signal::SIGHUP),
        Sig::ILL => Some(Signal::SIGILL),
        Sig::INT => Some(Signal::SIGINT),
        Sig::KILL => Some(Signal::SIGKILL),
        Sig::PIPE => Some(Signal::SIGPIPE),
        Sig::QUIT => Some(Signal::SIGQUIT),
        Sig::SEGV => Some(Signal::SIGSEGV),
        Sig::TERM => Some(Signal::SIGTERM),
        Sig::USR1 => Some(Signal::SIGUSR1),
        Sig::Custom(name) => {
            let name = name.strip_prefix("SIG").unwrap_or(name);
            format!("SIG{name}").parse().ok()
        }
    }
}

/// The names of RFC 4254 where it has one; the others in its form, as OpenSSH's client takes them.
pub(super) fn to_ssh(number: i32) -> Sig {
    match Signal::try_from(number) {
        Ok(Signal::SIGABRT) => Sig::ABRT,
        Ok(Signal::SIGALRM) => Sig::ALRM,
        Ok(Signal::SIGFPE) => Sig::FPE,
        Ok(Signal::SIGHUP) => Sig::HUP,
        Ok(Signal::SIGILL) => Sig::ILL,
        Ok(Signal::SIGINT) => Sig::INT,
        Ok(Signal::SIGKILL) => Sig::KILL,
        Ok(Signal::SIGPIPE) => Sig::PIPE,
        Ok(Signal::SIGQUIT) => Sig::QUIT,
        Ok(Signal::SIGSEGV) => Sig::SEGV,
        Ok(Signal::SIGTERM) => Sig::TERM,
        Ok(Signal::SIGUSR1) => Sig::USR1,
        Ok(other) => Sig::Custom(other.as_str().trim_start_matches("SIG").to_owned()),
        Err(_) => Sig::Custom(format!("RT{number}")),
    }
}

pub(super) fn name(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for number in 1..32 {
            assert_eq!(from_ssh(&to_ssh(number)), Signal::try_from(number).ok(), "signal {number}");
            let named = Sig::Custom(name(&to_ssh(number)));
            assert_eq!(from_ssh(&named), Signal::try_from(number).ok(), "signal {number}");
        }
        assert_eq!(from_ssh(&Sig::Custom("WINCH".into())), Some(Signal::SIGWINCH));
        assert_eq!(from_ssh(&Sig::Custom("SIGUSR2".into())), Some(Signal::SIGUSR2));
        assert_eq!(from_ssh(&Sig::Custom("NONSENSE".into())), None);
    }
}
