//! Lines of a directory for people, in the form of `ls -l`. Programs are given attributes.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY: i64 = 86_400;
/// Older than this, or of the future, the year is told instead of the time.
const RECENT: i64 = 182 * DAY;

/// Names of users and groups, looked up once.
#[derive(Debug)]
pub(super) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Default for Names {
    fn default() -> Self {
        let read = |path| by_number(&fs::read_to_string(path).unwrap_or_default());
        Self { users: read("/etc/passwd"), groups: read("/etc/group") }
    }
}

/// Both files have the name first and the number third.
fn by_number(text: &str) -> HashMap<u32, String> {
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    };
    text.lines().rev().filter_map(line).collect()
}

impl Names {
    pub(super) fn line(&self, meta: &Metadata, now: i64, name: &[u8]) -> Vec<u8> {
        let named = |names: &HashMap<u32, String>, id: u32| {
            names.get(&id).cloned().unwrap_or_else(|| id.to_string())
        };
        let (user, group) = (named(&self.users, meta.uid()), named(&self.groups, meta.gid()));
        let head = format!(
            "{} {:>4} {user:<8} {group:<8} {:>10} {} ",
            mode(meta),
            meta.nlink(),
            meta.len(),
            time(meta.mtime(), now),
        );
        [head.as_bytes(), name].concat()
    }
}

fn mode(meta: &Metadata) -> String {
    let (kind, bits) = (meta.file_type(), meta.mode());
    let first = match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_block_device() => 'b',
        () if kind.is_char_device() => 'c',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () => '-',
    };
    permissions(first, bits)
}

fn permissions(first: char, bits: u32) -> String {
    let mut text = String::from(first);
    for (shift, special, set, unset) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let has = |bit: u32| bits >> shift & bit != 0;
        text.push(if has(4) { 'r' } else { '-' });
        text.push(if has(2) { 'w' } else { '-' });
        text.push(match (bits & special != 0, has(1)) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn time(time: i64, now: i64) -> String {
    let (year, month, day) = date(time.div_euclid(DAY));
    let month = MONTHS.get(month - 1).copied().unwrap_or("?");
    let seconds = time.rem_euclid(DAY);
    if (now - RECENT..=now + DAY).contains(&time) {
        format!("{month} {day:>2} {:02}:{:02}", seconds / 3600, seconds / 60 % 60)
    } else {
        format!("{month} {day:>2}  {year:>4}")
    }
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. Years are counted from March, so that
/// the leap day is a year's last.
fn date(days: i64) -> (i64, usize, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, usize::try_from(month).unwrap_or(1), day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_786, (2026, 11, 29)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
        assert_eq!(time(0, 0), "Jan  1 00:00");
        assert_eq!(time(3661, 366 * DAY), "Jan  1  1970");
    }

    #[test]
    fn modes_are_spelled_as_ls_does() {
        assert_eq!(permissions('-', 0o644), "-rw-r--r--");
        assert_eq!(permissions('d', 0o1777), "drwxrwxrwt");
        assert_eq!(permissions('-', 0o4711), "-rws--x--x");
        assert_eq!(permissions('-', 0o2600), "-rw---S---");
    }

    #[test]
    fn numbers_have_the_first_name_that_has_them() {
        let names = by_number("root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\nbad\n");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), [(0, "root".to_owned())]);
    }
}
