//! Our block in a file that is the user's: found by its marks, put first, taken out again. Pure, and
//! on bytes, for the rest of the file is not ours to understand.

use std::ops::Range;
use std::path::Path;

use super::table::quoted;

const BEGIN: &[u8] = b"# >>> banger";
const END: &[u8] = b"# <<< banger";

/// The file as its user left it, and ours in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    before: &'a [u8],
    ours: &'a [u8],
    after: &'a [u8],
}

/// One mark without the other: whose the lines below it are, nobody can say.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the block of banger in it has no {0}")]
pub(crate) struct DamagedBlock(&'static str);

impl<'a> Block<'a> {
    pub(crate) fn find(text: &'a [u8]) -> Result<Self, DamagedBlock> {
        let begin = line_with(text, BEGIN, 0);
        let Some(begin) = begin else {
            return match line_with(text, END, 0) {
                None => Ok(Self { before: b"", ours: b"", after: text }),
                Some(_) => Err(DamagedBlock("beginning")),
            };
        };
        let end = line_with(text, END, begin.end).ok_or(DamagedBlock("end"))?;
        let part = |range: Range<usize>| text.get(range).unwrap_or_default();
        Ok(Self {
            before: part(0..begin.start),
            ours: part(begin.start..end.end),
            after: part(end.end..text.len()),
        })
    }

    pub(crate) fn is_there(&self) -> bool {
        !self.ours.is_empty()
    }

    /// The file with our block first: an `Include` below a `Host` line counts for that host alone.
    pub(crate) fn with(&self, include: &Path) -> Vec<u8> {
        let ours = [
            BEGIN,
            b": `banger ssh-config --uninstall` takes these lines out\nInclude ",
            &quoted(include),
            b"\n",
            END,
            b"\n",
        ];
        [&ours.concat(), self.before, self.after].concat()
    }

    pub(crate) fn without(&self) -> Vec<u8> {
        [self.before, self.after].concat()
    }
}

/// The first whole line from `from` on that begins with `mark`.
fn line_with(text: &[u8], mark: &[u8], from: usize) -> Option<Range<usize>> {
    let mut start = from;
    while start < text.len() {
        let rest = text.get(start..)?;
        let length = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        if rest.starts_with(mark) {
            return Some(start..start + length);
        }
        start += length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const INCLUDE: &str = "/home/u/.config/banger/ssh_config";

    #[test]
    fn whatever_was_there_comes_back_byte_for_byte() {
        let files: [&[u8]; 5] = [
            b"",
            b"Host *\n  User me",
            b"\n\n",
            b"\xff\xfe\r\nHost x\r\n",
            b"# >> banger\nHost y\n",
        ];
        for file in files {
            let found = Block::find(file).unwrap();
            assert!(!found.is_there());
            let with = found.with(INCLUDE.as_ref());
            assert!(with.ends_with(file) && with.starts_with(BEGIN));
            let again = Block::find(&with).unwrap();
            assert!(again.is_there());
            assert_eq!(again.with(INCLUDE.as_ref()), with, "twice is once");
            assert_eq!(again.without(), file);
        }
    }

    #[test]
    fn lines_put_in_front_of_it_stay() {
        let block = Block::find(b"").unwrap().with(INCLUDE.as_ref());
        let text = [b"Host a\n".as_slice(), &block, b"Host b\n"].concat();
        let found = Block::find(&text).unwrap();
        assert_eq!(found.without(), b"Host a\nHost b\n");
        assert_eq!(found.with(INCLUDE.as_ref()), [&block, b"Host a\nHost b\n".as_slice()].concat());
    }

    #[test]
    fn half_a_block_is_left_alone() {
        assert_eq!(Block::find(b"# >>> banger\nInclude x\n"), Err(DamagedBlock("end")));
        assert_eq!(Block::find(b"Include x\n# <<< banger\n"), Err(DamagedBlock("beginning")));
    }
}
