//! The lane: one program a client, over a channel of the VMM's own, without SSH.
//!
//! Nobody but the VMM's owner and the guest's root can reach either end of it, so there is nothing
//! to encrypt and nobody to prove, and no choice to negotiate: a command starts after one exchange.
//! On an emulated processor that is a fraction of what an SSH connection costs. Terminals,
//! forwarding and everything else are SSH's.
//!
//! ```text
//! host                          guest
//! greeting ───────────────────>
//!          <─────────────────── the same greeting
//! Request  ───────────────────>
//! Data, End, Signal ──────────>
//!          <─────────────────── Out, Err, Grant
//!          <─────────────────── Exit | Died, after all output
//! ```
//!
//! The channel may be a byte stream that knows no connections, a virtio-serial port. There the
//! guest drops all it hears until a greeting comes, [`MAGIC`] and bytes of the client's choice, and
//! ends whatever it still had to do for the client before; the client drops what comes before its
//! own greeting. A greeting is written in one piece. Over vsock each client has a connection of its
//! own, which begins with its greeting and ends with its program. Either way a program is asked for
//! only when the greeting was answered, so that a client that gives up and goes another way never
//! runs it twice.
//!
//! A frame is its kind, the length of its payload (u32 LE, at most [`MAX_PAYLOAD`]) and the
//! payload. `Data` is sent only as far as it was granted: at first [`WINDOW`] bytes, then what
//! `Grant` adds, so that a program that does not read holds up neither signals nor its own end.

/// Name of the virtio-serial port.
pub const PORT_NAME: &str = "banger.lane.0";
/// The vsock port on which the guest listens, for the host alone. Below 1024: there nobody but the
/// guest's root can listen in the agent's place.
pub const VSOCK_PORT: u32 = 1023;
/// Random, so that nothing else is taken for it.
pub const MAGIC: [u8; 16] = [
    0xb4, 0x1f, 0x5c, 0xe9, 0x07, 0xd2, 0x8a, 0x63, 0xf1, 0x3e, 0x99, 0x40, 0x6d, 0xc8, 0x15, 0xab,
];
/// Of the client's choice, to know its own greeting by.
pub const NONCE_BYTES: usize = 16;
pub const GREETING_BYTES: usize = MAGIC.len() + NONCE_BYTES;
/// Bytes before each payload.
pub const HEADER_BYTES: usize = 5;
/// The largest request is the largest payload; data comes in smaller pieces.
pub const MAX_PAYLOAD: usize = super::codec::MAX_BYTES;
/// Bytes of input that a client may send before the first grant.
pub const WINDOW: u32 = 256 << 10;

pub type Greeting = [u8; GREETING_BYTES];

#[must_use]
pub fn greeting(nonce: [u8; NONCE_BYTES]) -> Greeting {
    let mut greeting = [0; GREETING_BYTES];
    let (magic, rest) = greeting.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    rest.copy_from_slice(&nonce);
    greeting
}

/// The greeting that `heard` begins with.
#[must_use]
pub fn as_greeting(heard: &[u8]) -> Option<Greeting> {
    let greeting: &Greeting = heard.first_chunk()?;
    greeting.starts_with(&MAGIC).then_some(*greeting)
}

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $kind:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $kind = $number,)* }

        impl TryFrom<u8> for $name {
            type Error = LaneError;

            fn try_from(byte: u8) -> Result<Self, LaneError> {
                match byte {
                    $($number => Ok(Self::$kind),)*
                    other => Err(LaneError::Kind(other)),
                }
            }
        }

        impl From<$name> for u8 {
            fn from(kind: $name) -> u8 {
                match kind { $($name::$kind => $number,)* }
            }
        }
    };
}

kinds! {
    /// What a client says. Grows at its end only.
    HostKind {
        /// An exec request, as [`super::exec::encode`] makes it. First and once.
        Request = 0,
        /// Input of the program.
        Data = 1,
        /// The end of its input.
        End = 2,
        /// The name of a signal, without `SIG`.
        Signal = 3,
    }
}

kinds! {
    /// What the guest says. Grows at its end only.
    GuestKind {
        /// Of the program's standard output.
        Out = 0,
        /// Of its standard error.
        Err = 1,
        /// u32 LE: so many more bytes of `Data` may be sent.
        Grant = 2,
        /// u32 LE: the program's exit status. The last word.
        Exit = 3,
        /// The name of the signal that ended it, without `SIG`. The last word.
        Died = 4,
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LaneError {
    #[error("lane frame of unknown kind {0}")]
    Kind(u8),
    #[error("lane frame of {0} bytes is over the limit")]
    TooLong(usize),
}

/// Kind, length and payload, ready to be written.
pub fn frame(kind: impl Into<u8>, payload: &[u8]) -> Result<Vec<u8>, LaneError> {
    let too_long = || LaneError::TooLong(payload.len());
    let length = u32::try_from(payload.len()).map_err(|_| too_long())?;
    if payload.len() > MAX_PAYLOAD {
        return Err(too_long());
    }
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.push(kind.into());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// How many bytes of `heard` its first frame takes, header included; `None` if more must be heard
/// to know.
pub fn first_frame(heard: &[u8]) -> Result<Option<usize>, LaneError> {
    let Some(header) = heard.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let [_, length @ ..] = *header;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_PAYLOAD {
        Err(LaneError::TooLong(length))
    } else {
        Ok(Some(HEADER_BYTES + length))
    }
}

/// The number that `Grant` and `Exit` carry.
#[must_use]
pub fn number(payload: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*payload.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_known_by_its_magic_and_its_length() {
        let greeting = greeting([7; NONCE_BYTES]);
        assert_eq!(as_greeting(&greeting), Some(greeting));
        assert_eq!(as_greeting(&[greeting.as_slice(), b"more"].concat()), Some(greeting));
        assert_eq!(as_greeting(&greeting[..GREETING_BYTES - 1]), None);
        assert_eq!(as_greeting(&[b"x", greeting.as_slice()].concat()), None);
    }

    #[test]
    fn frames_are_told_apart_and_limited() {
        let out = frame(GuestKind::Out, b"hello").unwrap();
        assert_eq!(out, b"\x00\x05\x00\x00\x00hello");
        for cut in 0..HEADER_BYTES {
            assert_eq!(first_frame(&out[..cut]), Ok(None));
        }
        assert_eq!(first_frame(&out[..HEADER_BYTES]), Ok(Some(10)));
        let exit = frame(GuestKind::Exit, &7_u32.to_le_bytes()).unwrap();
        assert_eq!(exit, b"\x03\x04\x00\x00\x00\x07\x00\x00\x00");
        assert_eq!(number(&exit[HEADER_BYTES..]), Some(7));
        let huge = b"\x01\xff\xff\xff\xff";
        assert_eq!(first_frame(huge), Err(LaneError::TooLong(u32::MAX as usize)));
        assert_eq!(
            frame(HostKind::Data, &vec![0; MAX_PAYLOAD + 1]),
            Err(LaneError::TooLong(MAX_PAYLOAD + 1))
        );
    }

    #[test]
    fn kinds_keep_their_numbers() {
        let host = [HostKind::Request, HostKind::Data, HostKind::End, HostKind::Signal];
        assert_eq!(host.map(u8::from), [0, 1, 2, 3]);
        let guest =
            [GuestKind::Out, GuestKind::Err, GuestKind::Grant, GuestKind::Exit, GuestKind::Died];
        assert_eq!(guest.map(u8::from), [0, 1, 2, 3, 4]);
        assert_eq!(GuestKind::try_from(5), Err(LaneError::Kind(5)));
        assert!(host.iter().all(|kind| HostKind::try_from(u8::from(*kind)) == Ok(*kind)));
    }
}
