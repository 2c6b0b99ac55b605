//! Virtio-serial ports: byte streams to the VMM that know no connections, only whether somebody
//! holds the other end.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

/// Without blocking, for reading and writing.
pub(crate) fn open(name: &str) -> io::Result<File> {
    let device = device(name).ok_or(io::ErrorKind::NotFound)?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(device)
}

/// Edge-triggered: a host that is away is one event, not a stream of them.
pub(crate) fn watch(port: &File) -> nix::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(port, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
    Ok(epoll)
}

/// By the kernel's own list: `/dev/virtio-ports` is made by udev, which few guests have.
fn device(name: &str) -> Option<PathBuf> {
    fs::read_dir("/sys/class/virtio-ports").ok()?.filter_map(Result::ok).find_map(|entry| {
        let found = fs::read_to_string(entry.path().join("name")).ok()?;
        (found.trim() == name).then(|| PathBuf::from("/dev").join(entry.file_name()))
    })
}
