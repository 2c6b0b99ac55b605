//! QEMU's program and what it says of its version.

use super::super::binary::Program;

pub(super) const QEMU: Program =
    Program { name: "qemu-system-x86_64", hint: "apt install qemu-system-x86" };

/// `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)` gives `7.2.22`.
pub(super) fn parse(text: &str) -> Option<String> {
    let (_, rest) = text.lines().next()?.split_once(" version ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_word_after_version() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright (c) 2003-2022\n";
        assert_eq!(parse(text).as_deref(), Some("7.2.22"));
        assert_eq!(parse("usage: true"), None);
        assert_eq!(parse(""), None);
    }
}
