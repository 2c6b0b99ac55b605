//! Firecracker's metrics: a file of lines of JSON, each with what was counted since the line
//! before it, one a minute and one whenever it is asked for.
//!
//! Firecracker goes on where it stood, whatever becomes of the file, so it cannot be cut. What has
//! been summed up is given back to the file system as a hole, and the sums are kept beside it with
//! how far they reach. They are written first: a crash between the two loses nothing.
//!
//! In a jail the file belongs to the VM's user, so nothing of it is trusted: it is not followed
//! anywhere, and not more of it is read than fits.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use serde_json::Value;

use crate::host::files::TempFile;
use crate::model::DeviceCounters;
use crate::ports::VmPaths;

/// So much of the file is kept before what was summed up is given back: forty lines or so.
const CAP: u64 = 256 << 10;
/// So much is read at a time, however long somebody made the file.
const MOST: u64 = 4 << 20;
/// Holes are made of whole pages, the largest that hosts have.
const PAGE: u64 = 64 << 10;
const TRIES: usize = 5;

/// What is summed up, in this order, which is also that of the file of sums.
const COUNTED: [(&str, &str); 11] = [
    ("net", "rx_bytes_count"),
    ("net", "tx_bytes_count"),
    ("net", "rx_packets_count"),
    ("net", "tx_packets_count"),
    ("block", "read_bytes"),
    ("block", "write_bytes"),
    ("block", "read_count"),
    ("block", "write_count"),
    ("block", "flush_count"),
    ("vsock", "rx_bytes_count"),
    ("vsock", "tx_bytes_count"),
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    /// Up to this byte of the file.
    reach: u64,
    counts: [u64; COUNTED.len()],
}

/// All that was counted since the VMM's start, as far as it was written. None where nothing is.
pub(super) fn read(paths: &VmPaths) -> io::Result<Option<DeviceCounters>> {
    let mut kept = Sums::read(&paths.firecracker_sums())?;
    for _ in 0..TRIES {
        let Some(file) = open(&paths.firecracker_metrics())? else { return Ok(None) };
        let sums = kept.on(&file)?;
        let now = Sums::read(&paths.firecracker_sums())?;
        // Else what was read may have been given back meanwhile.
        if now == kept {
            return Ok(Some(sums.counters()));
        }
        kept = now;
    }
    Err(io::Error::new(ErrorKind::TimedOut, "it changes faster than it is read"))
}

/// Keeps the file small. Called by one at a time.
pub(in crate::host) fn trim(paths: &VmPaths) -> io::Result<()> {
    let Some(file) = open(&paths.firecracker_metrics())? else { return Ok(()) };
    let kept = Sums::read(&paths.firecracker_sums())?;
    if file.metadata()?.len().saturating_sub(kept.reach) <= CAP {
        return Ok(());
    }
    let sums = kept.on(&file)?;
    sums.write(&paths.firecracker_sums())?;
    let hole = sums.reach / PAGE * PAGE;
    if hole > 0 {
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, hole)?;
    }
    Ok(())
}

/// A plain file of that very name, or none.
fn open(path: &Path) -> io::Result<Option<File>> {
    const FLAGS: i32 = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = File::options().read(true).write(true).custom_flags(FLAGS).open(path);
    match file {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(io::Error::new(ErrorKind::InvalidData, "it is not a file")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Sums {
    /// Text, because it is small, and whoever looks for an error can read it.
    fn read(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let mut sums = Self::default();
        let whole = (|| {
            sums.reach = next()?;
            sums.counts.iter_mut().try_for_each(|count| next().map(|next| *count = next))
        })();
        whole.map(|()| sums).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no sums"))
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let numbers = std::iter::once(&self.reach).chain(&self.counts);
        let text = numbers.map(u64::to_string).collect::<Vec<_>>().join(" ");
        let temp = TempFile::beside(path);
        let file = File::options().write(true).create_new(true).mode(0o600).open(temp.path())?;
        file.write_all_at(text.as_bytes(), 0)?;
        temp.publish(path)
    }

    /// With the whole lines that came since.
    fn on(mut self, file: &File) -> io::Result<Self> {
        let end = file.metadata()?.len();
        let length = end.saturating_sub(self.reach).min(MOST);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, self.reach)?;
        let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            // So much without a line is none; what comes after it may be one again.
            if length == MOST {
                self.reach += length;
            }
            return Ok(self);
        };
        for line in bytes[..last].split(|byte| *byte == b'\n') {
            self.add(line);
        }
        self.reach += last as u64 + 1;
        Ok(self)
    }

    /// What a line lacks, or what is no line, counts as nothing.
    fn add(&mut self, line: &[u8]) {
        let Ok(line) = serde_json::from_slice::<Value>(line) else { return };
        for (count, (group, key)) in self.counts.iter_mut().zip(COUNTED) {
            let new = line.get(group).and_then(|group| group.get(key)).and_then(Value::as_u64);
            *count = count.saturating_add(new.unwrap_or(0));
        }
    }

    fn counters(&self) -> DeviceCounters {
        let [
            net_in_bytes,
            net_out_bytes,
            net_in_packets,
            net_out_packets,
            disk_read_bytes,
            disk_written_bytes,
            disk_reads,
            disk_writes,
            disk_flushes,
            vsock_in_bytes,
            vsock_out_bytes,
        ] = self.counts;
        DeviceCounters {
            net_in_bytes,
            net_out_bytes,
            net_in_packets,
            net_out_packets,
            disk_read_bytes,
            disk_written_bytes,
            disk_reads,
            disk_writes,
            disk_flushes,
            vsock_in_bytes,
            vsock_out_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use tempfile::TempDir;

    use super::*;
    use crate::model::VmId;

    fn place() -> (TempDir, VmPaths, File) {
        let dir = tempfile::tempdir().unwrap();
        let paths = VmPaths::new(dir.path(), dir.path(), VmId([1; 16]));
        let metrics = paths.firecracker_metrics();
        fs::create_dir_all(metrics.parent().unwrap()).unwrap();
        // As Firecracker has it: not in append mode.
        let file = File::create(metrics).unwrap();
        (dir, paths, file)
    }

    fn line(bytes: u64) -> String {
        format!(
            r#"{{"net":{{"rx_bytes_count":{bytes}}},"net_net0":{{"rx_bytes_count":9}},"block":{{"flush_count":1}},"vcpu":{{}},"new":[]}}"#
        ) + "\n"
    }

    #[test]
    fn lines_add_up_and_half_a_line_waits_for_its_rest() {
        let (_dir, paths, mut file) = place();
        assert_eq!(read(&paths).unwrap().unwrap(), DeviceCounters::default());
        let text = [line(5), line(7), "nonsense\n\n".to_owned(), line(1)].concat();
        let (now, later) = text.split_at(text.len() - 3);
        file.write_all(now.as_bytes()).unwrap();
        assert_eq!(read(&paths).unwrap().unwrap().net_in_bytes, 12);
        file.write_all(later.as_bytes()).unwrap();
        let counters = read(&paths).unwrap().unwrap();
        assert_eq!((counters.net_in_bytes, counters.disk_flushes), (13, 3));
        fs::remove_file(paths.firecracker_metrics()).unwrap();
        assert_eq!(read(&paths).unwrap(), None);
        trim(&paths).unwrap();
    }

    #[test]
    fn a_long_file_is_given_back_and_nothing_of_its_sums_is_lost() {
        let (_dir, paths, mut file) = place();
        let lines = |count: usize| line(1).repeat(count);
        let per_line = line(1).len() as u64;
        let mut total = 0;
        for round in 1..=3_u64 {
            let count = usize::try_from(3 * CAP / per_line).unwrap();
            file.write_all(lines(count).as_bytes()).unwrap();
            file.write_all(&line(1).as_bytes()[..20]).unwrap();
            total += count as u64;
            trim(&paths).unwrap();
            trim(&paths).unwrap();
            assert_eq!(read(&paths).unwrap().unwrap().net_in_bytes, total, "round {round}");
            file.write_all(&line(1).as_bytes()[20..]).unwrap();
            total += 1;
            assert_eq!(read(&paths).unwrap().unwrap().net_in_bytes, total, "round {round}");
        }
        let meta = fs::metadata(paths.firecracker_metrics()).unwrap();
        assert!(meta.len() > 8 * CAP, "it is as long as it was made");
        assert!(meta.blocks() * 512 < CAP, "and takes {} bytes", meta.blocks() * 512);
    }

    #[test]
    fn what_a_guests_user_may_put_there_leads_nowhere() {
        let (dir, paths, file) = place();
        let metrics = paths.firecracker_metrics();
        // A hole without end is read on in pieces.
        file.set_len(1 << 40).unwrap();
        assert_eq!(read(&paths).unwrap().unwrap(), DeviceCounters::default());
        trim(&paths).unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, line(1).repeat(1 << 15)).unwrap();
        let long = fs::metadata(&secret).unwrap().blocks();
        fs::remove_file(&metrics).unwrap();
        std::os::unix::fs::symlink(&secret, &metrics).unwrap();
        assert!(read(&paths).is_err());
        assert!(trim(&paths).is_err());
        assert_eq!(fs::metadata(&secret).unwrap().blocks(), long);
        fs::remove_file(&metrics).unwrap();
        nix::unistd::mkfifo(
            &metrics,
            nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR,
        )
        .unwrap();
        assert!(read(&paths).is_err());
    }
}
