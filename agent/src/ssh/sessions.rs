//! All connections at once: they end when the guest was away for so long that nobody can be left
//! at their other end. A client that is would wait for the end of its keepalives.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::sync::watch;

/// Ends the connections there are; those that come later are not meant.
#[derive(Clone, Debug)]
pub(crate) struct Sessions(watch::Sender<()>);

/// One connection's view.
#[derive(Debug)]
pub(super) struct End {
    told: watch::Receiver<()>,
    /// The connection itself, however deep in somebody's hands its own handle is.
    twin: Option<OwnedFd>,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self(watch::channel(()).0)
    }

    pub(crate) fn end(&self) {
        self.0.send_replace(());
    }

    pub(super) fn enter(&self, connection: &impl AsFd) -> End {
        let twin = connection.as_fd().try_clone_to_owned().ok();
        End { told: self.0.subscribe(), twin }
    }
}

impl End {
    /// Waits until the connections are to end, and cuts this one: its owner reads that it is over.
    pub(super) async fn cut(&mut self) {
        if self.told.changed().await.is_err() {
            return std::future::pending().await;
        }
        if let Some(twin) = &self.twin {
            let _ = shutdown(twin.as_raw_fd(), Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn connections_of_before_are_cut_and_later_ones_are_not() {
        let sessions = Sessions::new();
        let (mut first, _peer) = UnixStream::pair().unwrap();
        let (later, _other) = UnixStream::pair().unwrap();
        let mut end = sessions.enter(&first);
        sessions.end();
        let mut end_of_later = sessions.enter(&later);
        end.cut().await;
        assert_eq!(first.read(&mut [0; 1]).await.unwrap(), 0, "it is over");
        tokio::select! {
            biased;
            () = end_of_later.cut() => panic!("it came later"),
            () = tokio::task::yield_now() => {}
        }
    }
}
