//! Which block device is which. Nothing is told by position: the config drive is found by its
//! magic and a file system by its UUID, read from the first 4 KiB of each device.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use banger_agent::contract::drive::{self, Boot};
use nix::poll::{PollTimeout, poll};

use crate::error::{AgentError, Context as _, Result};

const HEAD_BYTES: usize = 4096;
const SUPERBLOCK: usize = 1024;
const RETRY: Duration = Duration::from_millis(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Ext4 { uuid: [u8; 16], blocks: u64, block_bytes: u64 },
    Erofs { uuid: [u8; 16] },
    Squashfs,
    ConfigDrive,
    Other,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) device: PathBuf,
    pub(super) bytes: u64,
    pub(super) content: Content,
}

/// The block devices seen so far; each is read once.
#[derive(Debug, Default)]
pub(super) struct Disks {
    seen: BTreeMap<String, Disk>,
}

impl Disks {
    pub(super) fn wait_for_config(&mut self, limit: Duration) -> Result<Boot> {
        let disk = self.wait_for(limit, |disk| disk.content == Content::ConfigDrive);
        let disk = disk.ok_or_else(|| {
            AgentError::Missing(format!("no config drive among {}", self.names()))
        })?;
        let device = disk.device.display().to_string();
        let bytes = read_config(&disk.device).context(|| format!("read config drive {device}"))?;
        drive::decode(&bytes).map_err(|source| AgentError::Drive { device, source })
    }

    pub(super) fn wait_for_ext4(
        &mut self,
        limit: Duration,
        wanted: &[u8; 16],
        what: &str,
    ) -> Result<Disk> {
        let is_it =
            |disk: &Disk| matches!(&disk.content, Content::Ext4 { uuid, .. } if uuid == wanted);
        self.wait_for(limit, is_it).ok_or_else(|| self.no_such(wanted, what))
    }

    /// A base may be ext4, erofs or squashfs.
    pub(super) fn wait_for_base(&mut self, limit: Duration, wanted: &[u8; 16]) -> Result<Disk> {
        let is_it = |disk: &Disk| match &disk.content {
            Content::Ext4 { uuid, .. } | Content::Erofs { uuid } => uuid == wanted,
            Content::Squashfs => true,
            Content::ConfigDrive | Content::Other => false,
        };
        self.wait_for(limit, is_it).ok_or_else(|| self.no_such(wanted, "base"))
    }

    fn wait_for(&mut self, limit: Duration, is_it: impl Fn(&Disk) -> bool) -> Option<Disk> {
        let start = Instant::now();
        loop {
            self.scan();
            if let Some(disk) = self.seen.values().find(|disk| is_it(disk)) {
                return Some(disk.clone());
            }
            if start.elapsed() > limit {
                return None;
            }
            let _ = poll(&mut [], PollTimeout::try_from(RETRY).unwrap_or(PollTimeout::ZERO));
        }
    }

    fn scan(&mut self) {
        let Ok(entries) = fs::read_dir("/sys/block") else {
            return;
        };
        for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            let virtual_device =
                ["loop", "ram", "zram", "dm-"].iter().any(|kind| name.starts_with(kind));
            if virtual_device || self.seen.contains_key(&name) {
                continue;
            }
            if let Ok(disk) = inspect(&name) {
                self.seen.insert(name, disk);
            }
        }
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.seen.keys().map(String::as_str).collect();
        if names.is_empty() { "no block devices at all".to_owned() } else { names.join(", ") }
    }

    fn no_such(&self, uuid: &[u8; 16], what: &str) -> AgentError {
        let uuid = u128::from_be_bytes(*uuid);
        AgentError::Missing(format!("no {what} disk with UUID {uuid:032x} among {}", self.names()))
    }
}

fn inspect(name: &str) -> io::Result<Disk> {
    let device = PathBuf::from("/dev").join(name);
    let sectors = fs::read_to_string(format!("/sys/block/{name}/size"))?;
    let mut head = [0; HEAD_BYTES];
    let mut filled = 0;
    let mut file = File::open(&device)?;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            n => filled += n,
        }
    }
    let bytes = sectors.trim().parse::<u64>().unwrap_or(0) * 512;
    Ok(Disk { device, bytes, content: recognise(&head) })
}

fn recognise(head: &[u8; HEAD_BYTES]) -> Content {
    let at = |offset: usize, len: usize| head.get(offset..offset + len).unwrap_or_default();
    let u32_at = |offset| at(offset, 4).first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let uuid_at = |offset| at(offset, 16).first_chunk().copied().unwrap_or_default();
    if head.starts_with(drive::MAGIC) {
        Content::ConfigDrive
    } else if head.starts_with(b"hsqs") {
        Content::Squashfs
    } else if u32_at(SUPERBLOCK) == 0xE0F5_E1E2 {
        Content::Erofs { uuid: uuid_at(SUPERBLOCK + 0x30) }
    } else if at(SUPERBLOCK + 0x38, 2) == [0x53, 0xEF] {
        // The high half counts only with the 64bit feature; without it the field is not used.
        let wide = u32_at(SUPERBLOCK + 0x60) & 0x80 != 0;
        let high = if wide { u64::from(u32_at(SUPERBLOCK + 0x150)) << 32 } else { 0 };
        Content::Ext4 {
            uuid: uuid_at(SUPERBLOCK + 0x68),
            blocks: high | u64::from(u32_at(SUPERBLOCK + 4)),
            block_bytes: 1024_u64.checked_shl(u32_at(SUPERBLOCK + 0x18)).unwrap_or(0),
        }
    } else {
        Content::Other
    }
}

fn read_config(device: &PathBuf) -> io::Result<Vec<u8>> {
    let file = File::open(device)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(drive::MAX_DRIVE_BYTES).unwrap_or(u64::MAX);
    let mut header = vec![0; drive::HEADER_BYTES];
    (&file).read_exact(&mut header)?;
    let need = drive::needed_bytes(&header).map_or(drive::HEADER_BYTES, |need| need);
    bytes.extend_from_slice(&header);
    let rest = u64::try_from(need - header.len()).unwrap_or(0).min(limit);
    file.take(rest).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(parts: &[(usize, &[u8])]) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        for (offset, bytes) in parts {
            head[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    #[test]
    fn each_kind_is_known_by_its_magic() {
        assert_eq!(recognise(&head(&[])), Content::Other);
        assert_eq!(recognise(&head(&[(0, drive::MAGIC)])), Content::ConfigDrive);
        assert_eq!(recognise(&head(&[(0, b"hsqs")])), Content::Squashfs);
        let erofs = head(&[(1024, &0xE0F5_E1E2_u32.to_le_bytes()), (1024 + 0x30, &[7; 16])]);
        assert_eq!(recognise(&erofs), Content::Erofs { uuid: [7; 16] });
    }

    #[test]
    fn ext4_size_is_read_in_both_widths() {
        let ext4 = |incompat: u32| {
            head(&[
                (1024 + 4, &10_u32.to_le_bytes()),
                (1024 + 0x18, &2_u32.to_le_bytes()),
                (1024 + 0x38, &[0x53, 0xEF]),
                (1024 + 0x60, &incompat.to_le_bytes()),
                (1024 + 0x68, &[9; 16]),
                (1024 + 0x150, &1_u32.to_le_bytes()),
            ])
        };
        let with = |blocks| Content::Ext4 { uuid: [9; 16], blocks, block_bytes: 4096 };
        assert_eq!(recognise(&ext4(0x80)), with((1 << 32) + 10));
        assert_eq!(recognise(&ext4(0)), with(10));
    }
}
