//! Why the store refused or failed, and what users are told of it.

use std::path::PathBuf;
use std::sync::Arc;

use super::table::BadValue;
use crate::model::{Code, Failure, Name, OpId, Subnet, TapName, VmId};
use crate::wire::codec::CodecError;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store queue is full")]
    Busy,
    #[error("the store writer is gone")]
    Gone,
    #[error("commit")]
    Commit(#[source] Arc<heed::Error>),
    #[error("the write job panicked")]
    Panicked,
    #[error("operation {0} is known with other contents")]
    Conflict(OpId),
    #[error("the name {name} belongs to VM {}", holder.short())]
    NameTaken { name: Name, holder: VmId },
    #[error("VM {0} exists already")]
    IdTaken(VmId),
    #[error("every guest address of {0} is taken")]
    AddressPoolFull(Subnet),
    #[error("no {what} named {name:?}")]
    NotFound { what: &'static str, name: String },
    #[error("{what} {name} exists with other contents")]
    Exists { what: &'static str, name: String },
    #[error("{what} {name} is used by {}", by.join(", "))]
    InUse { what: &'static str, name: String, by: Vec<String> },
    #[error("tap {tap} is leased to VM {}", vm.short())]
    TapLeased { tap: TapName, vm: VmId },
    #[error("id, name and address of VM {0} are fixed for its life")]
    Identity(VmId),
    #[error("create {}", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("{} is on a network file system", path.display())]
    NetworkFileSystem { path: PathBuf },
    #[error("open the store in {}", path.display())]
    Open { path: PathBuf, source: heed::Error },
    #[error("start the store writer")]
    Spawn(#[source] std::io::Error),
    #[error("the store has schema {found}, this banger knows up to {known}")]
    Downgrade { found: u32, known: u32 },
    #[error("migrate the store from schema {from}")]
    Migrate { from: u32, source: Box<StoreError> },
    #[error("decode {table} row {key}")]
    Corrupt { table: &'static str, key: String, source: CodecError },
    #[error("understand {table} row {key}")]
    Value { table: &'static str, key: String, source: BadValue },
    #[error("encode a row of {table}")]
    Encode { table: &'static str, source: CodecError },
    #[error("the store is nearly full ({used_mib} of {map_mib} MiB): only what takes away goes on")]
    NearlyFull { used_mib: usize, map_mib: usize },
    #[error("lmdb")]
    Lmdb(#[from] heed::Error),
}

impl StoreError {
    /// Whether there is no room left: new work is refused, reads go on.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Lmdb(error) | Self::Open { source: error, .. } => lmdb_is_full(error),
            Self::Commit(error) => lmdb_is_full(error),
            Self::Directory { source, .. } => io_is_full(source),
            Self::Migrate { source, .. } => source.is_full(),
            Self::NearlyFull { .. } => true,
            _ => false,
        }
    }

    fn code(&self) -> Code {
        match self {
            full if full.is_full() => Code::NoSpace,
            Self::Busy => Code::Overloaded,
            Self::Conflict(_) => Code::Conflict,
            Self::NameTaken { .. } | Self::IdTaken(_) | Self::Exists { .. } => Code::Exists,
            Self::AddressPoolFull(_) => Code::AddressPoolFull,
            Self::NotFound { .. } => Code::NotFound,
            Self::InUse { .. } | Self::TapLeased { .. } => Code::InUse,
            Self::NetworkFileSystem { .. } | Self::Downgrade { .. } => Code::Refused,
            Self::Corrupt { .. } | Self::Value { .. } => Code::Corrupt,
            Self::Encode { source: CodecError::TooLarge(_), .. } => Code::Invalid,
            Self::Directory { .. } | Self::Open { .. } | Self::Commit(_) | Self::Lmdb(_) => {
                Code::Host
            }
            Self::Migrate { source, .. } => source.code(),
            Self::NearlyFull { .. } => Code::NoSpace,
            Self::Gone
            | Self::Panicked
            | Self::Identity(_)
            | Self::Spawn(_)
            | Self::Encode { .. } => Code::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NearlyFull { .. } => {
                "restart bangerd, which makes the store larger, or delete VMs that are not needed"
            }
            full if full.is_full() => {
                "free space where the state directory is, or delete VMs that are not needed"
            }
            Self::NameTaken { name, .. } => {
                return Some(format!("choose another name, or: banger vm delete {name}"));
            }
            Self::AddressPoolFull(_) => {
                "delete VMs that are not needed, or configure a larger subnet"
            }
            Self::NotFound { what: "image", .. } => {
                "list the images there are: banger image list; or build one: banger image build debian"
            }
            Self::NotFound { what: "kernel", .. } => {
                "list the kernels there are: banger kernel list; or import one: banger kernel import"
            }
            Self::Exists { what, name } => {
                return Some(format!(
                    "choose another name, or: banger {what} {} {name}",
                    if *what == "kernel" { "rm" } else { "delete" }
                ));
            }
            Self::InUse { by, .. } => {
                return Some(format!("first: banger vm delete {}", by.join(" ")));
            }
            Self::Downgrade { .. } => {
                "a newer banger has written this store: run that version, or a newer one"
            }
            Self::NetworkFileSystem { .. } => "put the state directory on a local file system",
            Self::Conflict(_) => "repeat the request under a new operation id",
            Self::Busy => "try again in a moment",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        let failure = Self::from_error(error.code(), error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

fn lmdb_is_full(error: &heed::Error) -> bool {
    match error {
        heed::Error::Mdb(heed::MdbError::MapFull) => true,
        heed::Error::Io(error) => io_is_full(error),
        _ => false,
    }
}

fn io_is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as K;
    matches!(error.kind(), K::StorageFull | K::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_map_is_no_space() {
        let full = StoreError::Lmdb(heed::Error::Mdb(heed::MdbError::MapFull));
        let failure = Failure::from(&full);
        assert_eq!(failure.code, Code::NoSpace);
        assert_eq!(failure.hints.len(), 1);
        let disk = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert!(StoreError::Commit(Arc::new(heed::Error::Io(disk))).is_full());
    }

    #[test]
    fn users_are_told_what_to_do() {
        let by = vec!["web".to_owned(), "db".to_owned()];
        let error = StoreError::InUse { what: "image", name: "debian".to_owned(), by };
        let failure = Failure::from(&error);
        assert_eq!(failure.message, "image debian is used by web, db");
        assert_eq!(failure.hints, ["first: banger vm delete web db"]);
        assert!(Failure::from(&StoreError::Busy).retryable);
    }
}
