//! Where jobs are: a directory each, named by its number.
//!
//! `job` is what was started and is locked for as long as somebody looks after it; `end` is how it
//! ended, there from then on.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::PathBuf;

use banger_agent::contract::codec::{self, Decode, Encode};
use banger_agent::contract::job::{JOBS_KEPT, JobInfo, JobState};

use super::output;

const PLACE: &str = "/var/lib/banger/jobs";
const JOB: &str = "job";
const END: &str = "end";

#[derive(Clone, Debug)]
pub(super) struct Shelf(PathBuf);

/// How a job ended, as it is kept.
#[derive(Debug, Encode, Decode)]
enum End {
    V1 { state: JobState, unix_ms: u64 },
}

/// What a job is, as it is kept.
#[derive(Debug, Encode, Decode)]
enum Job {
    V1(JobInfo),
}

impl Shelf {
    pub(super) fn standard() -> Self {
        Self(PLACE.into())
    }

    #[cfg(test)]
    fn at(place: PathBuf) -> Self {
        Self(place)
    }

    pub(super) fn dir(&self, id: u32) -> PathBuf {
        self.0.join(id.to_string())
    }

    /// A place for one more. The oldest of too many that have ended goes.
    pub(super) fn claim(&self) -> io::Result<u32> {
        fs::create_dir_all(&self.0)?;
        let ids = self.ids()?;
        for id in ids.iter().take(ids.len().saturating_sub(JOBS_KEPT)) {
            if self.dir(*id).join(END).exists() {
                drop(fs::remove_dir_all(self.dir(*id))); // tried again with the next
            }
        }
        let mut id = ids.last().copied().unwrap_or(0);
        loop {
            id += 1;
            match fs::create_dir(self.dir(id)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| id),
            }
        }
    }

    pub(super) fn forget(&self, id: u32) {
        drop(fs::remove_dir_all(self.dir(id)));
    }

    /// Writes down what runs. It counts as running until the answer is dropped.
    pub(super) fn put(&self, job: JobInfo) -> io::Result<File> {
        let path = self.dir(job.id).join(JOB);
        let file = File::create(&path)?;
        file.lock()?;
        (&file).write_all(&codec::encode(&Job::V1(job)).map_err(io::Error::other)?)?;
        Ok(file)
    }

    pub(super) fn end(&self, id: u32, state: JobState, unix_ms: u64) -> io::Result<()> {
        let (new, path) = (self.dir(id).join("end.new"), self.dir(id).join(END));
        let mut file = File::create(&new)?;
        file.write_all(&codec::encode(&End::V1 { state, unix_ms }).map_err(io::Error::other)?)?;
        file.sync_all()?;
        fs::rename(new, path)
    }

    pub(super) fn list(&self) -> io::Result<Vec<JobInfo>> {
        Ok(self.ids()?.into_iter().filter_map(|id| self.job(id)).collect())
    }

    /// `None`: there is none, or not yet.
    pub(super) fn job(&self, id: u32) -> Option<JobInfo> {
        let dir = self.dir(id);
        let file = File::open(dir.join(JOB)).ok()?;
        // Before its end is looked for: who looks after it writes the end first.
        let kept = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        let Job::V1(mut job) = codec::decode(&fs::read(dir.join(JOB)).ok()?).ok()?;
        let end = fs::read(dir.join(END)).ok().and_then(|bytes| codec::decode(&bytes).ok());
        (job.state, job.ended_unix_ms) = match end {
            Some(End::V1 { state, unix_ms }) => (state, Some(unix_ms)),
            None if kept => (JobState::Running, None),
            None => (JobState::Lost, None),
        };
        Some(job)
    }

    pub(super) fn output(
        &self,
        id: u32,
        follow: bool,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> io::Result<()> {
        if self.job(id).is_none() {
            let none = format!("there is no job {id}");
            return Err(io::Error::new(io::ErrorKind::NotFound, none));
        }
        let goes_on = || follow && self.job(id).is_some_and(|job| job.state == JobState::Running);
        output::copy(&self.dir(id), goes_on, out, err)
    }

    fn ids(&self) -> io::Result<Vec<u32>> {
        let dir = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            dir => dir?,
        };
        let names = dir.filter_map(|entry| Some(entry.ok()?.file_name()));
        let mut ids: Vec<u32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u32) -> JobInfo {
        let argv = vec!["make".to_owned(), "a b".to_owned()];
        let (user, state) = ("root".to_owned(), JobState::Running);
        JobInfo { id, argv, user, pid: 7, started_unix_ms: 1, ended_unix_ms: None, state }
    }

    #[test]
    fn a_job_runs_while_it_is_kept_and_its_end_stays() {
        let dir = std::env::temp_dir().join(format!("banger-shelf-{}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        let shelf = Shelf::at(dir.clone());
        assert_eq!(shelf.list().unwrap(), []);
        let (first, second) = (shelf.claim().unwrap(), shelf.claim().unwrap());
        assert_eq!((first, second), (1, 2));
        assert_eq!(shelf.job(first), None, "claimed and not begun");
        let kept = shelf.put(job(first)).unwrap();
        let other = shelf.put(job(second)).unwrap();
        assert_eq!(shelf.job(first), Some(job(first)));
        shelf.end(first, JobState::Exited(3), 9).unwrap();
        drop((kept, other));
        let states: Vec<_> = shelf.list().unwrap().into_iter().map(|job| job.state).collect();
        assert_eq!(states, [JobState::Exited(3), JobState::Lost]);
        assert_eq!(shelf.job(first).unwrap().ended_unix_ms, Some(9));
        for _ in 0..=JOBS_KEPT {
            let id = shelf.claim().unwrap();
            shelf.end(id, JobState::Exited(0), 9).unwrap();
        }
        assert!(!shelf.dir(first).exists(), "the oldest that has ended goes");
        assert!(shelf.dir(second).exists(), "what has no end stays");
        fs::remove_dir_all(dir).unwrap();
    }
}
