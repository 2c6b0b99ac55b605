//! What was installed, so that it can be renewed and taken away: `/etc/banger/install.toml`.

use std::io::ErrorKind;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::SetupError;
use super::places::Places;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: String,
    pub owner: String,
    pub prefix: PathBuf,
    /// Programs that the helper may start.
    pub vmm: Vec<PathBuf>,
    pub jailer: Option<PathBuf>,
}

impl Record {
    /// `None`: nothing is installed.
    pub fn read(places: &Places) -> Result<Option<Self>, SetupError> {
        let path = places.at(&Places::record());
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SetupError::io("read", &path)(error)),
        };
        toml::from_str(&text).map(Some).map_err(|error| {
            SetupError::refused(format!("{}: {}", path.display(), error.message()))
                .hint("remove it and run `banger system install --owner USER` again")
        })
    }

    pub(super) fn text(&self) -> Result<String, SetupError> {
        let body = toml::to_string(self)
            .map_err(|error| SetupError::refused(format!("write the record: {error}")))?;
        Ok(format!("# Written by `banger system install`, read by its other commands.\n{body}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path(), "/usr/local".as_ref());
        assert_eq!(Record::read(&places).unwrap(), None);
        let record = Record {
            version: "1.2.3".into(),
            owner: "alice".into(),
            prefix: "/usr/local".into(),
            vmm: vec!["/usr/bin/qemu-system-x86_64".into()],
            jailer: None,
        };
        std::fs::create_dir_all(places.at(&Places::etc())).unwrap();
        std::fs::write(places.at(&Places::record()), record.text().unwrap()).unwrap();
        assert_eq!(Record::read(&places).unwrap(), Some(record));
        std::fs::write(places.at(&Places::record()), "owner = 1").unwrap();
        assert!(Record::read(&places).unwrap_err().way_out().is_some());
    }
}
