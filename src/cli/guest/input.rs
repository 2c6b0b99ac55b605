//! Standard input, read by a thread: a terminal or a file cannot be waited for otherwise without
//! changing it for every process that shares it. The thread may sit in its read until the process
//! ends, which does not wait for it.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, oneshot};
use tokio_util::io::StreamReader;

use super::escape::Escape;

const CHUNK: usize = 32 << 10;
const WAITING: usize = 4;

pub(super) type Input = Box<dyn AsyncRead + Unpin>;
type Leave = Option<oneshot::Receiver<()>>;

/// Stdin, and with `typed` a sign that the user wants to leave: the escape is looked for only in
/// what a person types.
pub(super) fn stdin(typed: bool) -> io::Result<(Input, Leave)> {
    let (sender, receiver) = mpsc::channel::<Bytes>(WAITING);
    let (leave, left) = oneshot::channel();
    let mut watch = typed.then(|| (Escape::default(), Some(leave)));
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = match stdin.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return,
                Ok(length) => buffer.get(..length).unwrap_or_default(),
            };
            let mut bytes = read.to_vec();
            if let Some((escape, leave)) = &mut watch {
                let filtered = escape.filter(read);
                bytes = filtered.bytes;
                if filtered.leave
                    && let Some(leave) = leave.take()
                {
                    let _ = leave.send(()); // Nobody listens: the command has ended.
                }
            }
            if !bytes.is_empty() && sender.blocking_send(bytes.into()).is_err() {
                return;
            }
        }
    })?;
    Ok((of(receiver), typed.then_some(left)))
}

/// Nothing, at once.
pub(super) fn none() -> (Input, Leave) {
    (of(mpsc::channel(1).1), None)
}

fn of(receiver: mpsc::Receiver<Bytes>) -> Input {
    let chunks = futures::stream::unfold(receiver, async |mut receiver| {
        let chunk = receiver.recv().await?;
        Some((Ok::<_, io::Error>(chunk), receiver))
    });
    Box::new(StreamReader::new(Box::pin(chunks)))
}
