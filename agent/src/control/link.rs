//! The wire of the control link and the thread that owns it. The host may leave and come back at
//! any time; each time it is there, it is told of readiness and its requests are answered.
//!
//! A thread of its own and plain system calls, for two reasons: a port whose host is away reports
//! a hang-up that never ends, which an async reactor takes for final, and what is asked for here
//! (sync, shutdown) blocks.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use banger_agent::contract::config::Control;
use banger_agent::contract::control::{
    FrameReader, GuestEvent, HostRequest, VSOCK_PORT, encode_frame,
};
use banger_agent::contract::drive::Boot;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{EpollEvent, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept4, bind, connect, getpeername,
    listen, socket,
};

use super::requests::{Blank, Desk};
use crate::init::{InitKind, Storage};
use crate::ssh::Sessions;
use crate::{log, port};

const HOST_CID: u32 = 2;
/// Hosts that wait for their turn.
const BACKLOG: i32 = 16;
/// After an accept that failed, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two tries to dial a host that does not listen.
const REDIAL: Duration = Duration::from_millis(200);
/// How long a host may leave its end unread before an event is dropped. It will say `Hello`.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// What a host says may be heard a moment before the port shows that it is there.
const ARRIVAL: Duration = Duration::from_millis(100);

/// Called when the server listens: from here on the guest is ready, or ready to be adopted.
pub(crate) fn start(
    boot: &Boot,
    kind: InitKind,
    storage: Storage,
    sessions: Sessions,
    blank: Option<Blank>,
) {
    let mut desk = Desk::new(boot, kind, storage, sessions, blank);
    let control = boot.guest.control.clone();
    let run = move || match control {
        Control::VirtioSerial { name } => serve_port(&name, &mut desk),
        Control::Vsock { port } => serve_vsock(port, &mut desk),
    };
    if let Err(error) = std::thread::Builder::new().name("control".into()).spawn(run) {
        log::line(format_args!("control link: {error}"));
    }
}

/// The last words of a boot that failed; only said if the host listens.
pub(crate) fn report_failure(control: &Control, stage: &str, error: &str) {
    let event = GuestEvent::NotReady { stage: stage.to_owned(), error: Some(error.to_owned()) };
    let opened = match control {
        // Before the configuration is read it is a guess.
        Control::VirtioSerial { name } => port::open(name).or_else(|_| dial(VSOCK_PORT)),
        Control::Vsock { port } => dial(*port),
    };
    if let Ok(mut wire) = opened {
        let _ = send(&mut wire, &event);
        // The host takes it from the queue while this machine still runs.
        pause(Duration::from_millis(50));
    }
}

fn serve_port(name: &str, desk: &mut Desk) {
    let mut wire = match port::open(name) {
        Ok(wire) => wire,
        Err(error) => return log::line(format_args!("control port {name}: {error}")),
    };
    let epoll = match port::watch(&wire) {
        Ok(epoll) => epoll,
        Err(errno) => return log::line(format_args!("control port {name}: {}", errno.desc())),
    };
    let _ = send(&mut wire, &desk.ready());
    loop {
        exchange(&mut wire, desk);
        let mut events = [EpollEvent::empty()];
        let _ = epoll.wait(&mut events, EpollTimeout::NONE);
    }
}

/// Tells the host of readiness, and from then on answers those who come. The host may come first:
/// then it is another one than was waiting, and will ask.
fn serve_vsock(port: u32, desk: &mut Desk) {
    let door = match open_door(port) {
        Ok(door) => door,
        Err(errno) => {
            return log::line(format_args!("control on vsock port {port}: {}", errno.desc()));
        }
    };
    loop {
        if let Ok(mut wire) = dial(port)
            && send(&mut wire, &desk.ready())
        {
            exchange(&mut wire, desk);
            break;
        }
        if wait_for(&door, PollFlags::POLLIN, REDIAL) {
            break;
        }
    }
    loop {
        match accept(&door) {
            Ok(Some(mut wire)) => exchange(&mut wire, desk),
            Ok(None) => log::line("control link: a stranger was turned away"),
            Err(errno) => {
                log::line(format_args!("control link: {}", errno.desc()));
                pause(ACCEPT_PAUSE);
            }
        }
    }
}

fn open_door(port: u32) -> nix::Result<OwnedFd> {
    let door = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(door.as_raw_fd(), &VsockAddr::new(nix::libc::VMADDR_CID_ANY, port))?;
    listen(&door, Backlog::new(BACKLOG)?)?;
    Ok(door)
}

/// `None` is a process of this very machine, which has no say over it.
fn accept(door: &OwnedFd) -> nix::Result<Option<File>> {
    let taken = accept4(door.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: the descriptor is new and owned by nobody else.
    #[allow(unsafe_code, reason = "a socket is read and written like a file")]
    let wire = unsafe { File::from_raw_fd(taken) };
    let peer: VsockAddr = getpeername(wire.as_raw_fd())?;
    Ok((peer.cid() == HOST_CID).then_some(wire))
}

/// Answers until the host leaves (or, on a port, has nothing more to say for now).
fn exchange(wire: &mut File, desk: &mut Desk) {
    let mut reader = FrameReader::default();
    let mut buffer = [0; 4096];
    loop {
        match wire.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => reader.push(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !reader.is_partial() {
                    return;
                }
                // The rest of a frame is on its way, or its host died; then the port hangs up.
                if !wait_for(wire, PollFlags::POLLIN, WRITE_LIMIT) {
                    return;
                }
            }
            Err(error) => return log::line(format_args!("control link: {error}")),
        }
        loop {
            match reader.next_message::<HostRequest>() {
                Ok(Some(request)) => desk.handle(request, &mut |event| {
                    let _ = send(wire, event);
                }),
                Ok(None) => break,
                Err(error) => {
                    log::line(format_args!("control link: {}", crate::error::Chain(&error)));
                    break;
                }
            }
        }
    }
}

/// An event that the host does not take is dropped, never queued: the host asks when it is back.
/// False then.
fn send(wire: &mut File, event: &GuestEvent) -> bool {
    let Ok(frame) = encode_frame(event) else {
        return false;
    };
    let mut left = frame.as_slice();
    let begun = Instant::now();
    while !left.is_empty() && begun.elapsed() < WRITE_LIMIT {
        match wire.write(left) {
            Ok(0) => return false,
            Ok(written) => left = left.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !wait_for(wire, PollFlags::POLLOUT, WRITE_LIMIT) {
                    if begun.elapsed() > ARRIVAL {
                        return false;
                    }
                    pause(Duration::from_millis(1));
                }
            }
            Err(_) => return false,
        }
    }
    left.is_empty()
}

/// False if the host is away, or was silent for as long.
fn wait_for(wire: &impl AsFd, what: PollFlags, limit: Duration) -> bool {
    let mut fds = [PollFd::new(wire.as_fd(), what)];
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    poll(&mut fds, timeout).is_ok_and(|count| count > 0)
        && fds.iter().all(|fd| {
            fd.revents()
                .is_some_and(|seen| seen.contains(what) && !seen.contains(PollFlags::POLLHUP))
        })
}

fn pause(time: Duration) {
    let _ = poll(&mut [], PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO));
}

/// Blocking: the connection's end is the only event besides its data.
fn dial(port: u32) -> io::Result<File> {
    let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    connect(socket.as_raw_fd(), &VsockAddr::new(HOST_CID, port))?;
    Ok(File::from(socket))
}
