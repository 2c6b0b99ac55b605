//! What a program of the agent says, up to a limit: a guest may say anything for as long as it likes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use banger_agent::contract::codec;
use tokio::io::AsyncWrite;

/// The longest answer that there is.
const MAX: usize = codec::MAX_BYTES;

/// What is over the limit is dropped.
#[derive(Debug, Default)]
pub(super) struct Words(Vec<u8>);

impl Words {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// For people: what could drive a terminal is left away.
    pub(super) fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.0);
        let printable = |line: &str| line.chars().filter(|c| !c.is_control()).collect();
        text.lines().map(printable).collect()
    }

    pub(super) fn last(&self) -> String {
        self.lines().pop().unwrap_or_else(|| "it does not say why".to_owned())
    }
}

impl AsyncWrite for Words {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = MAX.saturating_sub(self.0.len()).min(bytes.len());
        self.0.extend_from_slice(bytes.get(..room).unwrap_or_default());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn too_much_is_dropped_and_nothing_drives_the_terminal() {
        let mut words = Words::default();
        words.write_all(b"one\n\x1b[2Jtwo\r\n").await.unwrap();
        assert_eq!(words.lines(), ["one", "[2Jtwo"]);
        words.write_all(&vec![b'x'; MAX]).await.unwrap();
        words.write_all(b"more").await.unwrap();
        assert_eq!(words.bytes().len(), MAX);
    }
}
