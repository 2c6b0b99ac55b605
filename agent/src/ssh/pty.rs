//! Pseudo-terminals: opened with the client's modes and size, read and written without blocking.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::pty::{Winsize, openpty};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::termios::{
    ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices, Termios,
    tcgetattr, tcsetattr,
};
use nix::unistd::{Pid, Uid, fchown, tcgetpgrp, ttyname};
use russh::Pty;
use tokio::io::unix::AsyncFd;

/// What a client asked for, before there is a program.
#[derive(Clone, Debug)]
pub(super) struct Terminal {
    pub(super) term: String,
    pub(super) size: Winsize,
    pub(super) modes: Vec<(Pty, u32)>,
}

#[derive(Debug)]
pub(super) struct Master(AsyncFd<OwnedFd>);

impl Terminal {
    /// The master, the slave and the slave's path.
    pub(super) fn open(&self, uid: u32) -> io::Result<(Master, OwnedFd, String)> {
        let pair = openpty(Some(&self.size), None)?;
        for fd in [&pair.master, &pair.slave] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        let mut termios = tcgetattr(&pair.slave)?;
        for (mode, value) in &self.modes {
            apply(&mut termios, *mode, *value);
        }
        tcsetattr(&pair.slave, SetArg::TCSANOW, &termios)?;
        // Both may be refused where the server does not run as root; the terminal is then its own.
        let _ = fchown(&pair.slave, Some(Uid::from_raw(uid)), None);
        let _ = fchmod(&pair.slave, Mode::from_bits_truncate(0o620));
        let name = ttyname(&pair.slave).map(|path| path.display().to_string()).unwrap_or_default();
        // SAFETY: an OwnedFd always gives the same descriptor, open for as long as it lives.
        #[allow(unsafe_code, reason = "registers a descriptor with the reactor")]
        let master = unsafe { AsyncFd::register(pair.master) }?;
        Ok((Master(master), pair.slave, name))
    }
}

impl Master {
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(done) = ready.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), buffer)?)) {
                return done;
            }
        }
    }

    pub(super) async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), data)?)) {
                Ok(Ok(written)) => data = data.get(written..).unwrap_or_default(),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// The kernel tells the foreground by SIGWINCH.
    pub(super) fn resize(&self, size: Winsize) {
        // SAFETY: the descriptor is open, and the pointer is to a live Winsize that is only read.
        #[allow(unsafe_code, reason = "an ioctl")]
        let _ = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    }

    pub(super) fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(self.0.get_ref().as_fd()).ok().filter(|group| group.as_raw() > 1)
    }
}

pub(super) fn size(columns: u32, rows: u32, width: u32, height: u32) -> Winsize {
    let clamp = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    Winsize {
        ws_row: clamp(rows),
        ws_col: clamp(columns),
        ws_xpixel: clamp(width),
        ws_ypixel: clamp(height),
    }
}

/// One mode of RFC 4254 section 8. Unknown ones, and speeds, mean nothing here.
fn apply(termios: &mut Termios, mode: Pty, value: u32) {
    if let Some(index) = special(mode) {
        // 255 is how the protocol says "none".
        let byte = u8::try_from(value).unwrap_or(255);
        if let Some(slot) = termios.control_chars.get_mut(index as usize) {
            *slot = if byte == 255 { 0 } else { byte };
        }
    } else if let Some(flag) = input(mode) {
        termios.input_flags.set(flag, value != 0);
    } else if let Some(flag) = local(mode) {
        termios.local_flags.set(flag, value != 0);
    } else if let Some(flag) = output(mode) {
        termios.output_flags.set(flag, value != 0);
    } else if let Some(flag) = control(mode) {
        termios.control_flags.set(flag, value != 0);
    }
}

fn special(mode: Pty) -> Option<SpecialCharacterIndices> {
    use SpecialCharacterIndices as Index;
    Some(match mode {
        Pty::VINTR => Index::VINTR,
        Pty::VQUIT => Index::VQUIT,
        Pty::VERASE => Index::VERASE,
        Pty::VKILL => Index::VKILL,
        Pty::VEOF => Index::VEOF,
        Pty::VEOL => Index::VEOL,
        Pty::VEOL2 => Index::VEOL2,
        Pty::VSTART => Index::VSTART,
        Pty::VSTOP => Index::VSTOP,
        Pty::VSUSP => Index::VSUSP,
        Pty::VREPRINT => Index::VREPRINT,
        Pty::VWERASE => Index::VWERASE,
        Pty::VLNEXT => Index::VLNEXT,
        Pty::VDISCARD => Index::VDISCARD,
        _ => return None,
    })
}

fn input(mode: Pty) -> Option<InputFlags> {
    Some(match mode {
        Pty::IGNPAR => InputFlags::IGNPAR,
        Pty::PARMRK => InputFlags::PARMRK,
        Pty::INPCK => InputFlags::INPCK,
        Pty::ISTRIP => InputFlags::ISTRIP,
        Pty::INLCR => InputFlags::INLCR,
        Pty::IGNCR => InputFlags::IGNCR,
        Pty::ICRNL => InputFlags::ICRNL,
        Pty::IXON => InputFlags::IXON,
        Pty::IXANY => InputFlags::IXANY,
        Pty::IXOFF => InputFlags::IXOFF,
        Pty::IMAXBEL => InputFlags::IMAXBEL,
        Pty::IUTF8 => InputFlags::IUTF8,
        _ => return None,
    })
}

fn local(mode: Pty) -> Option<LocalFlags> {
    Some(match mode {
        Pty::ISIG => LocalFlags::ISIG,
        Pty::ICANON => LocalFlags::ICANON,
        Pty::ECHO => LocalFlags::ECHO,
        Pty::ECHOE => LocalFlags::ECHOE,
        Pty::ECHOK => LocalFlags::ECHOK,
        Pty::ECHONL => LocalFlags::ECHONL,
        Pty::NOFLSH => LocalFlags::NOFLSH,
        Pty::TOSTOP => LocalFlags::TOSTOP,
        Pty::IEXTEN => LocalFlags::IEXTEN,
        Pty::ECHOCTL => LocalFlags::ECHOCTL,
        Pty::ECHOKE => LocalFlags::ECHOKE,
        Pty::PENDIN => LocalFlags::PENDIN,
        _ => return None,
    })
}

fn output(mode: Pty) -> Option<OutputFlags> {
    Some(match mode {
        Pty::OPOST => OutputFlags::OPOST,
        Pty::OLCUC => OutputFlags::OLCUC,
        Pty::ONLCR => OutputFlags::ONLCR,
        Pty::OCRNL => OutputFlags::OCRNL,
        Pty::ONOCR => OutputFlags::ONOCR,
        Pty::ONLRET => OutputFlags::ONLRET,
        _ => return None,
    })
}

fn control(mode: Pty) -> Option<ControlFlags> {
    Some(match mode {
        Pty::CS7 => ControlFlags::CS7,
        Pty::CS8 => ControlFlags::CS8,
        Pty::PARENB => ControlFlags::PARENB,
        Pty::PARODD => ControlFlags::PARODD,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_size_reach_the_terminal() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        let modes = vec![
            (Pty::ECHO, 0),
            (Pty::ICANON, 1),
            (Pty::VINTR, 7),
            (Pty::VQUIT, 255),
            (Pty::IXON, 0),
        ];
        let terminal = Terminal { term: "xterm".into(), size: size(132, 43, 0, 0), modes };
        let (master, slave, name) = terminal.open(0).unwrap();
        let termios = tcgetattr(&slave).unwrap();
        assert!(!termios.local_flags.contains(LocalFlags::ECHO));
        assert!(termios.local_flags.contains(LocalFlags::ICANON));
        assert!(!termios.input_flags.contains(InputFlags::IXON));
        assert_eq!(termios.control_chars[SpecialCharacterIndices::VINTR as usize], 7);
        assert_eq!(termios.control_chars[SpecialCharacterIndices::VQUIT as usize], 0);
        assert!(name.starts_with("/dev/pts/"), "{name}");
        master.resize(size(80, 24, 0, 0));
        assert_eq!(master.foreground(), None);
    }

    #[test]
    fn what_is_written_at_one_end_is_read_at_the_other() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let terminal = Terminal {
                term: String::new(),
                size: size(80, 24, 0, 0),
                modes: vec![(Pty::ONLCR, 0)],
            };
            let (master, slave, _) = terminal.open(0).unwrap();
            nix::unistd::write(&slave, b"hello\n").unwrap();
            let mut buffer = [0; 16];
            let length = master.read(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"hello\n");
            master.write_all(b"typed\n").await.unwrap();
            let length = nix::unistd::read(&slave, &mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"typed\n");
            drop(slave);
        });
    }
}
