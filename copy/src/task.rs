//! What the half in the guest is asked to do. Names are bytes: arguments of a program would not do.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::error::CopyError;
use crate::frame::{FrameKind, HEADER, MAX_PAYLOAD, Sender};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Be the receiver, for this place.
    Receive(PathBuf),
    /// Be the sender of these.
    Send(Vec<PathBuf>),
}

const RECEIVE: u8 = 0;
const SEND: u8 = 1;

/// Before anything else is said.
pub fn write_task(task: &Task, to: impl Write) -> Result<(), CopyError> {
    let (first, paths) = match task {
        Task::Receive(path) => (RECEIVE, std::slice::from_ref(path)),
        Task::Send(paths) => (SEND, paths.as_slice()),
    };
    let mut payload = vec![first];
    for path in paths {
        payload.extend(path.as_os_str().as_bytes());
        payload.push(0);
    }
    if payload.len() > MAX_PAYLOAD {
        return Err(CopyError::Nonsense("too many names"));
    }
    let mut sender = Sender::new(to);
    sender.say(FrameKind::Task, &payload)?;
    sender.flush()
}

/// Reads not a byte more: what follows is for [`crate::send()`] or [`crate::receive()`].
pub fn read_task(mut from: impl Read) -> Result<Task, CopyError> {
    const NONSENSE: CopyError = CopyError::Nonsense("no task");
    let mut head = [0; HEADER];
    from.read_exact(&mut head).map_err(CopyError::Broken)?;
    let [kind, length @ ..] = head;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if kind != 0 || length == 0 || length > MAX_PAYLOAD {
        return Err(NONSENSE);
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).map_err(CopyError::Broken)?;
    let (first, names) = payload.split_first().ok_or(NONSENSE)?;
    let names = names.strip_suffix(&[0]).ok_or(NONSENSE)?;
    let path = |name: &[u8]| PathBuf::from(OsString::from_vec(name.to_vec()));
    match *first {
        RECEIVE => Ok(Task::Receive(path(names))),
        SEND => Ok(Task::Send(names.split(|byte| *byte == 0).map(path).collect())),
        _ => Err(NONSENSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_go_both_ways_and_take_no_more_than_their_own() {
        let strange = PathBuf::from(OsString::from_vec(b"a\n\xff b".to_vec()));
        for task in [
            Task::Receive(strange.clone()),
            Task::Receive("".into()),
            Task::Send(vec!["/a".into(), strange]),
        ] {
            let mut bytes = vec![];
            write_task(&task, &mut bytes).unwrap();
            bytes.extend(b"rest");
            let mut from = bytes.as_slice();
            assert_eq!(read_task(&mut from).unwrap(), task);
            assert_eq!(from, b"rest");
        }
        assert!(read_task(&[9, 1, 0, 0, 0, 0][..]).is_err());
    }
}
