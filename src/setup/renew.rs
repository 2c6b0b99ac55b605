//! Other programs in the place of those that run, with a way back until the new ones have proved
//! themselves.

use std::fs;
use std::path::{Path, PathBuf};

use super::account;
use super::error::SetupError;
use super::files::{Change, Did, Item, apply, beside, remove};
use super::install::{configuration, programs, unit_items};
use super::places::Places;
use super::record::Record;

/// What was replaced. Dropped without a word it leaves the old ones aside, where the next renewal
/// clears them away.
#[derive(Debug)]
pub struct Renewal {
    /// The new one's path, and where the old one waits, if there was one.
    replaced: Vec<(PathBuf, Option<PathBuf>)>,
}

impl Renewal {
    /// Puts the programs from `from` and the units that belong to them in place. Nothing is
    /// restarted. What cannot be replaced in the middle is taken back.
    pub fn begin(
        places: &Places,
        record: &Record,
        from: &Path,
        say: &mut dyn FnMut(Change),
    ) -> Result<Self, SetupError> {
        let owner = account::find(&record.owner)?.ok_or_else(|| {
            SetupError::refused(format!("the owner {} does not exist any more", record.owner))
        })?;
        let config = configuration(places)?;
        let mut items = programs(from, places)?;
        items.extend(unit_items(places, &config, &owner, record)?);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let text = Record { version, ..record.clone() }.text()?;
        items.push(Item::File { path: places.at(&Places::record()), text });
        let mut renewal = Self { replaced: vec![] };
        for item in &items {
            match renewal.replace(item) {
                Ok(change) => say(change),
                Err(error) => {
                    renewal.take_back(&mut |_| ())?;
                    return Err(error);
                }
            }
        }
        Ok(renewal)
    }

    #[must_use]
    pub fn changed_something(&self) -> bool {
        !self.replaced.is_empty()
    }

    fn replace(&mut self, item: &Item) -> Result<Change, SetupError> {
        let change = apply(item, true)?;
        let (Item::Program { path, .. } | Item::File { path, .. }) = item else {
            return apply(item, false);
        };
        if change.did == Did::Kept {
            return Ok(change);
        }
        let mut old = None;
        if change.did == Did::Replaced {
            let aside = beside(path, "old");
            remove(&aside).map_err(SetupError::io("remove", &aside))?;
            fs::hard_link(path, &aside).map_err(SetupError::io("keep", path))?;
            old = Some(aside);
        }
        self.replaced.push((path.clone(), old));
        apply(item, false)
    }

    /// The old ones again.
    pub fn take_back(self, say: &mut dyn FnMut(Change)) -> Result<(), SetupError> {
        for (path, old) in self.replaced.iter().rev() {
            match old {
                Some(old) => fs::rename(old, path).map_err(SetupError::io("put back", path))?,
                None => drop(remove(path).map_err(SetupError::io("remove", path))?),
            }
            say(Change::new(Did::Replaced, format!("{} by the old one", path.display())));
        }
        Ok(())
    }

    /// The old ones are not needed any more.
    pub fn keep(self) -> Result<(), SetupError> {
        for old in self.replaced.iter().filter_map(|(_, old)| old.as_ref()) {
            remove(old).map_err(SetupError::io("remove", old))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::account::tests::somebody;
    use crate::setup::{PROGRAMS, Systemd, Wish, install};

    fn release(dir: &Path, what: &str) -> PathBuf {
        let from = dir.join(what);
        fs::create_dir_all(&from).unwrap();
        for (name, _) in PROGRAMS {
            fs::write(from.join(name), what).unwrap();
        }
        from
    }

    #[test]
    fn new_programs_are_kept_or_taken_back_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let owner = Some(somebody());
        let wish = Wish { owner, from: release(dir.path(), "old"), ..Wish::default() };
        let record = install(&root, Systemd::Absent, &wish, &mut |_| ()).unwrap();
        let places = Places::new(&root, &record.prefix);
        let daemon = places.at(&places.program("bangerd"));
        let lib = daemon.parent().unwrap().to_owned();
        let said = |path: &Path| fs::read_to_string(path).unwrap();
        let new = release(dir.path(), "new");

        let renewal = Renewal::begin(&places, &record, &new, &mut |_| ()).unwrap();
        assert!(renewal.changed_something());
        assert_eq!(said(&daemon), "new");
        renewal.take_back(&mut |_| ()).unwrap();
        assert_eq!(said(&daemon), "old");
        assert_eq!(fs::read_dir(&lib).unwrap().count(), 3);

        // One that was killed in the middle is no hindrance.
        drop(Renewal::begin(&places, &record, &new, &mut |_| ()).unwrap());
        let newer = release(dir.path(), "newer");
        Renewal::begin(&places, &record, &newer, &mut |_| ()).unwrap().keep().unwrap();
        assert_eq!(said(&daemon), "newer");
        assert_eq!(fs::read_dir(&lib).unwrap().count(), 3);
        let again = Renewal::begin(&places, &record, &newer, &mut |_| ()).unwrap();
        assert!(!again.changed_something());

        fs::remove_file(new.join("banger-agent")).unwrap();
        let error = Renewal::begin(&places, &record, &new, &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("banger-agent is not in"), "{error}");
        assert_eq!(said(&daemon), "newer");
    }
}
