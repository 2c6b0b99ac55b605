//! The way out of a shell whose guest hangs: `~.` at the start of a line, as in OpenSSH. In raw
//! mode Ctrl-C belongs to the guest.

/// Where in a line the user's typing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Escape {
    #[default]
    LineStart,
    Tilde,
    Inside,
}

/// What to send on, and whether the user wants out after it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filtered {
    pub(crate) bytes: Vec<u8>,
    pub(crate) leave: bool,
}

impl Escape {
    pub(crate) fn filter(&mut self, typed: &[u8]) -> Filtered {
        let mut bytes = Vec::with_capacity(typed.len() + 1);
        for &byte in typed {
            let next = if matches!(byte, b'\r' | b'\n') { Self::LineStart } else { Self::Inside };
            *self = match (*self, byte) {
                (Self::LineStart, b'~') => {
                    *self = Self::Tilde;
                    continue; // Held back: it may begin an escape.
                }
                (Self::Tilde, b'.') => {
                    *self = Self::LineStart;
                    return Filtered { bytes, leave: true };
                }
                (Self::Tilde, b'~') => {
                    bytes.push(byte);
                    Self::Inside
                }
                (Self::Tilde, _) => {
                    bytes.extend([b'~', byte]);
                    next
                }
                (Self::LineStart | Self::Inside, _) => {
                    bytes.push(byte);
                    next
                }
            };
        }
        Filtered { bytes, leave: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What arrives when the pieces are typed one after the other.
    fn typed(pieces: &[&str]) -> (String, bool) {
        let mut escape = Escape::default();
        let mut arrived = vec![];
        for piece in pieces {
            let filtered = escape.filter(piece.as_bytes());
            arrived.extend(filtered.bytes);
            if filtered.leave {
                return (String::from_utf8(arrived).unwrap(), true);
            }
        }
        (String::from_utf8(arrived).unwrap(), false)
    }

    #[test]
    fn the_escape_works_at_line_starts_only() {
        assert_eq!(typed(&["ls\r~.more"]), ("ls\r".to_owned(), true));
        assert_eq!(typed(&["~."]), (String::new(), true));
        assert_eq!(typed(&["\r", "~", "."]), ("\r".to_owned(), true));
        assert_eq!(typed(&["cd ~.\r"]), ("cd ~.\r".to_owned(), false));
    }

    #[test]
    fn other_tildes_arrive() {
        assert_eq!(typed(&["~~."]), ("~.".to_owned(), false));
        assert_eq!(typed(&["~/bin\r"]), ("~/bin\r".to_owned(), false));
        assert_eq!(typed(&["~", "\r", "~."]), ("~\r".to_owned(), true));
        assert_eq!(typed(&["\u{3}\u{1a}"]), ("\u{3}\u{1a}".to_owned(), false));
    }
}
