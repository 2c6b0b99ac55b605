//! Names in a layer that speak of lower layers. Pure.

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What a file system that once lay under such layers kept for itself.
const INTERNAL: &[u8] = b".wh..wh.";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// An entry like any other.
    None,
    /// Everything that lower layers have in this directory is gone.
    Opaque(Vec<u8>),
    /// What lower layers have under this name is gone.
    Whiteout(Vec<u8>),
    /// Of no meaning here.
    Internal,
    /// It would remove a directory from within.
    Nameless,
}

pub(super) fn mark(path: &[u8]) -> Mark {
    let trimmed = path.strip_suffix(b"/").unwrap_or(path);
    let cut = trimmed.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (dir, name) = trimmed.split_at(cut);
    if trimmed.split(|byte| *byte == b'/').any(|part| part != OPAQUE && part.starts_with(INTERNAL))
    {
        return Mark::Internal;
    }
    if name == OPAQUE {
        // The root has no other name.
        return Mark::Opaque(if dir.is_empty() { b"./".to_vec() } else { dir.to_vec() });
    }
    match name.strip_prefix(PREFIX) {
        None => Mark::None,
        Some(b"" | b"." | b"..") => Mark::Nameless,
        Some(name) => Mark::Whiteout([dir, name].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for (path, wanted) in [
            ("a/b", Mark::None),
            ("a/wh.b", Mark::None),
            ("a/.whb", Mark::None),
            ("./a/.wh.b", Mark::Whiteout(b"./a/b".to_vec())),
            (".wh.a b\n", Mark::Whiteout(b"a b\n".to_vec())),
            ("a/.wh.b/", Mark::Whiteout(b"a/b".to_vec())),
            ("a/.wh..wh..opq", Mark::Opaque(b"a/".to_vec())),
            (".wh..wh..opq", Mark::Opaque(b"./".to_vec())),
            (".wh..wh.plnk", Mark::Internal),
            (".wh..wh.plnk/12.34", Mark::Internal),
            ("a/.wh..wh.aufs", Mark::Internal),
            ("a/.wh.", Mark::Nameless),
            ("a/.wh...", Mark::Nameless),
            ("a/.wh..", Mark::Nameless),
            ("a/.wh..b", Mark::Whiteout(b"a/.b".to_vec())),
        ] {
            assert_eq!(mark(path.as_bytes()), wanted, "{path:?}");
        }
    }
}
