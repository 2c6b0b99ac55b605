//! Images from registries: what the daemon was told of registries, and how far a pull is.

use std::path::PathBuf;

use super::size::Size;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Those that are spoken to without TLS, as references write them: `127.0.0.1:5000`.
    pub plain_http: Vec<String>,
    /// Authorities besides the host's, in PEM.
    pub certificates: Vec<PathBuf>,
    /// In place of the files that Docker and Podman keep credentials in.
    pub auth_file: Option<PathBuf>,
    /// Blobs that come at one time, of all pulls together.
    pub parallel: usize,
    /// How often in a row something is tried without any success.
    pub tries: u32,
    /// Blobs that are kept for the next pull.
    pub cache_size: Size,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            plain_http: vec![],
            certificates: vec![],
            auth_file: None,
            parallel: 4,
            tries: 7,
            cache_size: Size::from_bytes(20 << 30),
        }
    }
}

/// How far one of the blobs of a pull is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// `sha256:` and the first digits.
    pub blob: String,
    /// Which of how many, counted from 1.
    pub number: u32,
    pub of: u32,
    pub bytes: u64,
    pub size: u64,
    pub bytes_per_second: u64,
    /// Until it is whole, if that can be said.
    pub left_ms: Option<u64>,
}

impl Transfer {
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes >= self.size
    }
}
