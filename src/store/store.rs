//! The store's handle: opening, writing, reading, closing.

use std::path::Path;
use std::time::Duration;

use crossbeam_channel as channel;
use heed::{Env, EnvOpenOptions, RoTxn, RwTxn, WithoutTls};
use tokio::sync::oneshot;

use super::schema::{Dbs, NB_DBS};
use super::writer::{Job, TypedJob, Writer};
use super::{StoreError, events, migrate, room};
use crate::model::OpRecord;

/// Address space, not disk: the file is sparse and grows as it fills.
const MAP_BYTES: usize = 1 << 30;
pub(super) const QUEUE: usize = 256;

/// Cheap to clone; the last clone to go ends the writer thread.
#[derive(Clone, Debug)]
pub struct Store {
    queue: channel::Sender<Box<dyn Job>>,
    pub(super) events: events::Publishing,
    pub(super) env: Env<WithoutTls>,
    dbs: Dbs,
    /// In place of the writer's thread.
    #[cfg(test)]
    mortal: Option<super::mortal::Mortal>,
}

impl Store {
    /// Opens or makes the store in `dir` and brings it up to the present schema. Whoever calls
    /// holds the daemon's lock: LMDB's own locks do not survive a second open by one process.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let file = std::fs::metadata(dir.join("data.mdb")).map_or(0, |meta| meta.len());
        Self::open_sized(dir, room::map_bytes(file, MAP_BYTES))
    }

    pub(super) fn open_sized(dir: &Path, map_bytes: usize) -> Result<Self, StoreError> {
        let (env, dbs) = open_env(dir, map_bytes)?;
        let (queue, jobs) = channel::bounded(QUEUE);
        let (writer, events) = writer(env.clone(), dbs, jobs)?;
        writer.spawn().map_err(StoreError::Spawn)?;
        Ok(Self {
            queue,
            events,
            env,
            dbs,
            #[cfg(test)]
            mortal: None,
        })
    }

    /// One whose daemon dies when it is told to. It has no thread: who writes waits for the disk, and
    /// so the same calls take the same turns each time.
    #[cfg(test)]
    pub(crate) fn open_mortal(
        dir: &Path,
        power: tokio_util::sync::CancellationToken,
    ) -> Result<Self, StoreError> {
        let (env, dbs) = open_env(dir, MAP_BYTES)?;
        let (queue, jobs) = channel::bounded(QUEUE);
        let (writer, events) = writer(env.clone(), dbs, jobs)?;
        let mortal = Some(super::mortal::Mortal::new(writer, power));
        Ok(Self { queue, events, env, dbs, mortal })
    }

    #[cfg(test)]
    pub(crate) fn mortal(&self) -> &super::mortal::Mortal {
        self.mortal.as_ref().expect("opened as one that can die")
    }

    /// Runs `job` on the writer thread and returns once it is durable. A caller that stops
    /// waiting does not stop the job.
    pub(super) async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut RwTxn<'_>, &Dbs) -> Result<T, StoreError> + Send + 'static,
    {
        #[cfg(test)]
        let turn = super::mortal::begin(self.mortal.as_ref()).await?;
        let (reply, answer) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(TypedJob::new(job, reply));
        self.queue.try_send(job).map_err(|refused| match refused {
            channel::TrySendError::Full(_) => StoreError::Busy,
            channel::TrySendError::Disconnected(_) => StoreError::Gone,
        })?;
        #[cfg(test)]
        turn.end().await;
        answer.await.unwrap_or(Err(StoreError::Gone))
    }

    /// Whether an operation of this kind may begin; see [`room`].
    pub(super) fn admit(&self, intent: &OpRecord) -> Result<(), StoreError> {
        match room::admit(&self.env, &self.dbs, intent.kind) {
            // It may be what filled it, and a retry is answered with what is known.
            Err(error) if self.op(intent.id)?.is_none() => Err(error),
            _ => Ok(()),
        }
    }

    /// Short reads only; a scan belongs on a blocking thread.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&RoTxn<'_, WithoutTls>, &Dbs) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        read(&self.env.read_txn()?, &self.dbs)
    }

    /// Returns once everything queued so far is durable, events included.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.write(|_, _| Ok(())).await
    }

    /// Waits, blocking, until the environment is closed. False: other clones are still held.
    #[must_use]
    pub fn close_blocking(self, limit: Duration) -> bool {
        let Self { queue, env, .. } = self;
        drop(queue); // the writer drains what is queued and lets go of its clone
        env.prepare_for_closing().wait_timeout(limit)
    }
}

fn writer(
    env: Env<WithoutTls>,
    dbs: Dbs,
    jobs: channel::Receiver<Box<dyn Job>>,
) -> Result<(Writer, events::Publishing), StoreError> {
    let last = events::last(&*env.read_txn()?, &dbs)?;
    let (events, published) = events::channel(last);
    Ok((Writer { env, dbs, jobs, published }, events))
}

#[allow(unsafe_code, reason = "LMDB maps a file that others could truncate")]
fn open_env(dir: &Path, map_bytes: usize) -> Result<(Env<WithoutTls>, Dbs), StoreError> {
    std::fs::create_dir_all(dir)
        .map_err(|source| StoreError::Directory { path: dir.to_owned(), source })?;
    refuse_network_file_systems(dir)?;
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_bytes).max_dbs(NB_DBS);
    // SAFETY: the daemon holds its lock file, is the only opener, and never forks with the
    // environment open.
    let env = unsafe { options.open(dir) }
        .map_err(|source| StoreError::Open { path: dir.to_owned(), source })?;
    // A daemon that was killed may have left reader slots behind; each would pin old pages.
    env.clear_stale_readers()?;
    let dbs = Dbs::create(&env)?;
    migrate::run(&env, &dbs)?;
    Ok((env, dbs))
}

/// LMDB's locks and memory map do not work over a network.
fn refuse_network_file_systems(dir: &Path) -> Result<(), StoreError> {
    const NETWORK: [i64; 4] = [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997]; // nfs cifs smb2 9p
    let found = nix::sys::statfs::statfs(dir)
        .map_err(|errno| StoreError::Directory { path: dir.to_owned(), source: errno.into() })?;
    if NETWORK.contains(&found.filesystem_type().0) {
        return Err(StoreError::NetworkFileSystem { path: dir.to_owned() });
    }
    Ok(())
}
