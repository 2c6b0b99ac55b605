//! The control link: readiness, health, clock, sync and shutdown, over a virtio-serial port (or
//! vsock). Frames are a u32 LE length and one encoded message.
//!
//! The host may come and go at any time, so nothing here depends on what was said before: the
//! host says `Hello` when it connects and gets `Ready` or `NotReady`, and every answer carries
//! the `op_id` it answers. A byte stream without connections may hold half a frame of a host
//! that died; the reader therefore resynchronises on [`MAX_FRAME_BYTES`] (see [`FrameReader`]).

use std::fmt;

use super::codec::{self, CodecError, Decode, Encode};
use super::config::GuestConfig;
use super::image::ImageStart;

/// Name of the virtio-serial port.
pub const PORT_NAME: &str = "banger.agent.0";
/// The vsock port, on both sides: see [`super::config::Control::Vsock`].
pub const VSOCK_PORT: u32 = 1024;
/// Payload of one frame.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// Fresh random bytes of the host's, for a guest that resumes.
pub const ENTROPY_BYTES: usize = 64;
/// What is kept of what a check printed: the end.
pub const CHECK_OUTPUT_BYTES: usize = 4096;
/// The first [`super::CONTRACT_VERSION`] whose agents know of checks.
pub const CHECKS_SINCE: u32 = 3;
/// Bytes of the length before each payload.
pub const LENGTH_BYTES: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HostRequest {
    pub op_id: [u8; 16],
    pub body: HostBody,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum HostBody {
    Hello {
        contract: u32,
    },
    Ping,
    /// Flush every file system; answered by `Synced`.
    Sync,
    /// Answered by `ShuttingDown` at once; the end of the VMM is the proof that it was done.
    Shutdown {
        mode: ShutdownMode,
        grace_ms: u64,
    },
    /// No answer.
    SetClock {
        unix_nanos: u64,
    },
    /// The guest stood still, on disk even, and goes on now: nobody is left at the other end of its
    /// connections, its clock shows when it was suspended, and its random numbers could have been
    /// drawn before. Answered by `Resumed` when all three are dealt with.
    Resumed {
        unix_nanos: u64,
        entropy: [u8; ENTROPY_BYTES],
    },
    /// Tells a blank guest who it is, once in its life; answered by `Adopted` or `Failed`. Disks,
    /// control link and SSH port of the config are not looked at.
    Adopt(Box<Adoption>),
    /// Runs `command` by `/bin/sh -c`, unless a check of this `op_id` was begun already. Answered at
    /// once, by `Checked` if it has ended and by `CheckRuns` if not: ask again. A check that is new
    /// ends the one before.
    Check {
        command: String,
        limit_ms: u64,
    },
    /// As `Adopt`, of an image that says how it is run. Its init was chosen when the guest booted.
    AdoptFor {
        adoption: Box<Adoption>,
        image: ImageStart,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Adoption {
    pub config: GuestConfig,
    pub fresh: Fresh,
}

/// What a machine lacks that was copied, or that stood still: randomness that no other copy has,
/// and the time.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Fresh {
    pub entropy: [u8; ENTROPY_BYTES],
    /// Since 1970.
    pub unix_nanos: u64,
}

/// What the guest's keys will be made from stays out of logs.
impl fmt::Debug for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fresh").field("unix_nanos", &self.unix_nanos).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ShutdownMode {
    PowerOff,
    Reboot,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum GuestEvent {
    Ready(ReadyInfo),
    /// The boot is at `stage`; with an error, it ended there.
    NotReady {
        stage: String,
        error: Option<String>,
    },
    Pong {
        op_id: [u8; 16],
    },
    Synced {
        op_id: [u8; 16],
    },
    ShuttingDown {
        op_id: [u8; 16],
    },
    Failed {
        op_id: [u8; 16],
        message: String,
    },
    /// With the boot id, which says that it is the boot that was suspended.
    Resumed {
        op_id: [u8; 16],
        boot_id: String,
    },
    /// The blank guest is the config's now, and serves.
    Adopted {
        op_id: [u8; 16],
        ready: ReadyInfo,
    },
    CheckRuns {
        op_id: [u8; 16],
    },
    Checked {
        op_id: [u8; 16],
        end: CheckEnd,
        /// The last [`CHECK_OUTPUT_BYTES`] of it.
        output: Vec<u8>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum CheckEnd {
    Exited(i32),
    /// By this signal.
    Killed(i32),
    TimedOut,
    NotStarted(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReadyInfo {
    pub contract: u32,
    pub agent_version: String,
    /// `/proc/sys/kernel/random/boot_id`: the same id means the same boot.
    pub boot_id: String,
    pub kernel_release: String,
    /// `PRETTY_NAME` of os-release.
    pub os_name: String,
    /// TCP port of the SSH server, 0 if none.
    pub ssh_port: u16,
    /// vsock port of the SSH server, if the VMM has vsock.
    pub vsock: Option<u32>,
    /// From the kernel's start to readiness.
    pub boot_millis: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("control frame of {0} bytes is over the limit")]
    TooLong(usize),
    #[error("control frame")]
    Payload(#[source] CodecError),
}

/// Length and payload, ready to be written.
pub fn encode_frame<T: Encode>(message: &T) -> Result<Vec<u8>, FrameError> {
    let payload = codec::encode(message).map_err(FrameError::Payload)?;
    let length = match u32::try_from(payload.len()) {
        Ok(length) if payload.len() <= MAX_FRAME_BYTES => length,
        _ => return Err(FrameError::TooLong(payload.len())),
    };
    let mut frame = Vec::with_capacity(LENGTH_BYTES + payload.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// One payload, without its length.
pub fn decode_payload<T: Decode<()>>(payload: &[u8]) -> Result<T, FrameError> {
    if payload.len() > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong(payload.len()));
    }
    codec::decode(payload).map_err(FrameError::Payload)
}

/// Takes bytes as they come and gives whole messages.
///
/// After an error the reader has dropped all it held: the next byte pushed is taken as the start
/// of a frame. Peers that keep frames whole therefore recover by themselves.
#[derive(Debug, Default)]
pub struct FrameReader {
    held: Vec<u8>,
}

impl FrameReader {
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Forgets half a frame, when the peer is known to be a new one.
    pub fn clear(&mut self) {
        self.held.clear();
    }

    /// True while a frame has begun and not ended.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.held.is_empty()
    }

    /// The next whole message; `None` asks for more bytes.
    pub fn next_message<T: Decode<()>>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(length) = self.held.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_FRAME_BYTES {
            self.held.clear();
            return Err(FrameError::TooLong(length));
        }
        let Some(payload) = self.held.get(LENGTH_BYTES..LENGTH_BYTES + length) else {
            return Ok(None);
        };
        let message = decode_payload(payload);
        match message {
            Ok(message) => {
                self.held.drain(..LENGTH_BYTES + length);
                Ok(Some(message))
            }
            Err(error) => {
                self.held.clear();
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(n: u8) -> HostRequest {
        HostRequest { op_id: [n; 16], body: HostBody::Ping }
    }

    #[test]
    fn frames_survive_any_cut() {
        let stream = [encode_frame(&ping(1)).unwrap(), encode_frame(&ping(2)).unwrap()].concat();
        for cut in 0..=stream.len() {
            let mut reader = FrameReader::default();
            let mut got = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                reader.push(part);
                while let Some(message) = reader.next_message::<HostRequest>().unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(got, [ping(1), ping(2)]);
            assert!(!reader.is_partial());
        }
    }

    #[test]
    fn an_oversized_or_random_frame_is_an_error_and_the_next_one_is_read() {
        let mut reader = FrameReader::default();
        reader.push(&[0xff; 32]);
        assert!(matches!(reader.next_message::<HostRequest>(), Err(FrameError::TooLong(_))));
        reader.push(&[3, 0, 0, 0, 9, 9, 9]);
        assert!(matches!(reader.next_message::<HostRequest>(), Err(FrameError::Payload(_))));
        reader.push(&encode_frame(&ping(3)).unwrap());
        assert_eq!(reader.next_message().unwrap(), Some(ping(3)));
    }

    #[test]
    fn a_message_over_the_limit_is_not_encoded() {
        let event = GuestEvent::NotReady { stage: "x".repeat(MAX_FRAME_BYTES), error: None };
        assert!(matches!(encode_frame(&event), Err(FrameError::TooLong(_))));
    }
}
