//! A line between a daemon and its registry, in the host's namespace: it can be good, held, or break
//! and spoil what comes by chance. Counts what it hands on.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::depot::DEPOT;
use crate::support::Host;

pub(crate) const LINE: &str = "127.0.0.1:5001";
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    Good,
    /// By chance, from this seed on.
    Bad(u64),
    /// So many bytes of each blob, then nothing until that changes.
    Held(u64),
}

#[derive(Clone)]
pub(crate) struct Line(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    /// Of bodies of blobs.
    served: AtomicU64,
    blobs: AtomicUsize,
    requests: AtomicUsize,
    held: AtomicUsize,
}

/// What becomes of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Whole,
    Hangup,
    Unavailable,
    Cut(u64),
    Spoiled(u64),
    /// Two pieces change places.
    Shuffled(u64),
}

impl Line {
    /// Up as long as the test's process.
    pub(crate) fn start(host: &Host) -> Self {
        let inner = Inner {
            state: Mutex::new(State::Good),
            changed: Condvar::new(),
            served: AtomicU64::new(0),
            blobs: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
        };
        let line = Self(Arc::new(inner));
        let (netns, ours) = (Path::new("/run/netns").join(&host.netns), line.clone());
        let (ready, listens) = mpsc::channel();
        std::thread::spawn(move || {
            // Of this thread alone, and of those that it starts.
            setns(File::open(netns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            let listener = TcpListener::bind(LINE).unwrap();
            ready.send(()).unwrap();
            for stream in listener.incoming().map_while(Result::ok) {
                let line = ours.clone();
                std::thread::spawn(move || drop(line.0.carry(stream)));
            }
        });
        listens.recv().unwrap();
        line
    }

    pub(crate) fn set(&self, state: State) {
        *self.0.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.0.changed.notify_all();
    }

    pub(crate) fn served(&self) -> u64 {
        self.0.served.load(Ordering::SeqCst)
    }

    pub(crate) fn blobs(&self) -> usize {
        self.0.blobs.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.0.requests.load(Ordering::SeqCst)
    }

    /// How many answers wait.
    pub(crate) fn held(&self) -> usize {
        self.0.held.load(Ordering::SeqCst)
    }
}

impl Inner {
    /// One request of one connection.
    fn carry(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        let request = String::from_utf8_lossy(&head(&mut client)?).into_owned();
        let number = self.requests.fetch_add(1, Ordering::SeqCst) as u64;
        let is_blob = request.lines().next().is_some_and(|line| line.contains("/blobs/"));
        if is_blob {
            self.blobs.fetch_add(1, Ordering::SeqCst);
        }
        let fate = match *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Bad(seed) => fate(seed, number),
            State::Good | State::Held(_) => Fate::Whole,
        };
        match fate {
            Fate::Hangup => return Ok(()),
            Fate::Unavailable => {
                let answer = "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\
                    Connection: close\r\n\r\n";
                return client.write_all(answer.as_bytes());
            }
            _ => {}
        }
        let mut depot = TcpStream::connect(DEPOT)?;
        depot.set_read_timeout(Some(PATIENCE))?;
        depot.write_all(request.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes())?;
        client.write_all(&head(&mut depot)?)?;
        self.body(&mut depot, &mut client, fate, is_blob)
    }

    fn body(
        &self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        fate: Fate,
        is_blob: bool,
    ) -> io::Result<()> {
        let (mut buffer, mut at) = (vec![0; 8 << 10], 0_u64);
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            let piece = &mut buffer[..read];
            let end = at + read as u64;
            match fate {
                Fate::Cut(cut) if cut < end => {
                    return to.write_all(&piece[..usize::try_from(cut - at).unwrap()]);
                }
                Fate::Spoiled(byte) if (at..end).contains(&byte) => {
                    piece[usize::try_from(byte - at).unwrap()] ^= 0x10;
                }
                Fate::Shuffled(byte) if (at..end).contains(&byte) => {
                    piece.rotate_left(read / 2);
                }
                _ => {}
            }
            if is_blob {
                self.wait_at(end);
                self.served.fetch_add(read as u64, Ordering::SeqCst);
            }
            to.write_all(piece)?;
            at = end;
        }
    }

    fn wait_at(&self, at: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Held(limit) if at > limit) {
            self.held.fetch_add(1, Ordering::SeqCst);
            while matches!(*state, State::Held(_)) {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            self.held.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn fate(seed: u64, number: u64) -> Fate {
    let mut dice = (seed << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    dice ^= dice >> 31;
    dice = dice.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let at = (dice >> 32) % (5 << 20);
    match dice % 20 {
        0..9 => Fate::Cut(at),
        9 => Fate::Spoiled(at),
        10 => Fate::Shuffled(at),
        11 | 12 => Fate::Hangup,
        13 => Fate::Unavailable,
        _ => Fate::Whole,
    }
}

fn head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = vec![];
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(head)
}
