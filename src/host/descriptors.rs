//! How many files the daemon may have open: a few for every VM that it watches, more than the 1024 that
//! most shells and services are given.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// To what the administrator allows. Programs that are started from here inherit it; those that still
/// use `select` are none of ours.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "limit of open files not raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_are_allowed() {
        raise_limit();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
    }
}
