//! `DiskHost` on the local file system.
//!
//! Owner of `<state>/vms/<id>/`, `<state>/templates/` and `<run>/<short id>/`. Every path is made
//! of those directories and an id in hexadecimal, so none can lead elsewhere; a symbolic link in
//! place of a VM's directory is refused. Disks hold users' data: nothing here replaces or resizes
//! one that exists.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::superblock::Superblock;
use super::template::{self, Templates};
use super::{check, choose, logs, mapped, reflink, saved, sparse, survey};
use crate::host::files::{
    blocking, ensure_private_dir, free_bytes, gone, is_real_dir, is_stale_temp,
};
use crate::host::helper_client::{HelperClient, survey_host};
use crate::host::vmm::firecracker::metrics;
use crate::model::{
    Code, DiskChoice, DiskUsage, HostSeen, OpId, ResourceKind, RootDisk, SavedBy, Size, VmId,
};
use crate::ports::{
    BaseImage, CheckedDisk, DiskHost, DiskPlan, HostError, LogKind, PortFuture, RootPlan, VmPaths,
};

#[derive(Clone, Debug)]
pub struct LocalDisks {
    vms: PathBuf,
    run: PathBuf,
    templates: Arc<Templates>,
    /// Makes the disks that are devices; without one there are none.
    helper: Option<HelperClient>,
}

impl LocalDisks {
    /// Keeps disks below `state`, sockets below `run`. Makes what is missing of both.
    pub fn new(state: &Path, run: &Path) -> Result<Self, HostError> {
        let (vms, templates) = (state.join("vms"), state.join("templates"));
        for dir in [state, run, &vms, &templates] {
            ensure_private_dir(dir)?;
        }
        let templates = Templates::new(templates);
        templates
            .sweep()
            .map_err(|error| HostError::io("sweep", state.display().to_string(), error))?;
        Ok(Self { vms, run: run.to_owned(), templates: Arc::new(templates), helper: None })
    }

    #[must_use]
    pub fn with_helper(self, helper: HelperClient) -> Self {
        Self { helper: Some(helper), ..self }
    }

    fn paths_of(&self, vm: VmId) -> VmPaths {
        VmPaths::new(&self.vms, &self.run, vm)
    }

    fn make_disks(
        &self,
        vm: VmId,
        plan: &DiskPlan,
        base: &BaseImage,
        seed: Option<&Path>,
    ) -> Result<(), HostError> {
        let paths = self.paths_of(vm);
        ensure_private_dir(&paths.dir)?;
        remove_stale(&paths.dir)
            .map_err(|error| HostError::io("clean", paths.dir.display().to_string(), error))?;
        let mut drafts = vec![];
        match plan.root {
            RootPlan::Overlay { size, uuid } => {
                let overlay = paths.overlay();
                if sound(&overlay)?.is_none() {
                    drafts.push(self.templates.draft(&overlay, size, uuid)?);
                }
            }
            RootPlan::Reflink { room } => {
                let root = paths.root();
                if sound(&root)?.is_none() {
                    drafts.push(reflink::draft(&root, base, room)?);
                }
            }
            RootPlan::DmSnapshot { room } => {
                let changes = paths.changes();
                if !changes.try_exists().is_ok_and(|there| there) {
                    let bytes = mapped::disk_bytes(base.size, room);
                    drafts.push(mapped::draft(&changes, bytes)?);
                }
            }
        }
        let work = paths.work();
        if sound(&work)?.is_none() {
            drafts.push(match seed {
                Some(seed) => template::copy(seed, &work)?,
                None => self.templates.draft(&work, plan.work, plan.work_uuid)?,
            });
        }
        template::publish(&drafts)
    }

    /// Its root and its work disk.
    fn disks_of(&self, vm: VmId, plan: &DiskPlan) -> [PathBuf; 2] {
        let paths = self.paths_of(vm);
        let root = match plan.root {
            RootPlan::Overlay { .. } => paths.overlay(),
            RootPlan::Reflink { .. } => paths.root(),
            RootPlan::DmSnapshot { .. } => paths.changes(),
        };
        [root, paths.work()]
    }

    fn copy_out(&self, vm: VmId, plan: &DiskPlan, to: &Path) -> Result<(), HostError> {
        for disk in self.disks_of(vm, plan) {
            let failed = |error| HostError::io("copy disk", disk.display().to_string(), error);
            let file = File::open(&disk).map_err(failed)?;
            let name = disk.file_name().unwrap_or_default();
            sparse::copy(&file, &to.join(name)).map_err(failed)?;
        }
        Ok(())
    }

    fn copy_in(&self, vm: VmId, plan: &DiskPlan, from: &Path) -> Result<(), HostError> {
        ensure_private_dir(&self.paths_of(vm).dir)?;
        let mut drafts = vec![];
        for disk in self.disks_of(vm, plan) {
            if sound(&disk)?.is_none() {
                let name = disk.file_name().unwrap_or_default();
                drafts.push(template::copy(&from.join(name), &disk)?);
            }
        }
        template::publish(&drafts)
    }

    fn plan_as_made(&self, vm: VmId, plan: &DiskPlan) -> Result<DiskPlan, HostError> {
        let uuid = |path: &Path| {
            let missing = || {
                HostError::new(Code::NotFound, "use disk", path.display().to_string())
                    .hint("restore the file from a backup, or delete the VM")
            };
            sound(path)?.map(|superblock| superblock.uuid()).ok_or_else(missing)
        };
        let [root, work] = self.disks_of(vm, plan);
        let mut plan = DiskPlan { work_uuid: uuid(&work)?, ..plan.clone() };
        match &mut plan.root {
            RootPlan::Overlay { uuid: overlay, .. } => *overlay = uuid(&root)?,
            // The image's, whatever becomes of the rest; a damaged one is found out here.
            RootPlan::Reflink { .. } => {
                uuid(&root)?;
            }
            RootPlan::DmSnapshot { .. } => {}
        }
        Ok(plan)
    }

    fn put_config(&self, vm: VmId, image: &[u8]) -> Result<(), HostError> {
        let paths = self.paths_of(vm);
        let target = paths.config();
        let failed =
            |error| HostError::io("write configuration drive", target.display().to_string(), error);
        ensure_private_dir(&paths.dir)?;
        gone(fs::remove_file(&target)).map_err(failed)?;
        // It holds the VM's private keys. It is not synced: each start writes it anew.
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&target)
            .map_err(failed)?;
        file.write_all(image).map_err(failed)
    }

    fn make_run_dir(&self, vm: VmId) -> Result<(), HostError> {
        let run = self.paths_of(vm).run;
        remove_tree(&run)?;
        for dir in [run, self.paths_of(vm).sockets()] {
            DirBuilder::new().mode(0o700).create(&dir).map_err(|error| {
                HostError::io("make directory", dir.display().to_string(), error)
            })?;
        }
        Ok(())
    }

    fn vms(&self) -> io::Result<Vec<VmId>> {
        let mut vms = Vec::new();
        for entry in fs::read_dir(&self.vms)? {
            vms.extend(entry?.file_name().to_str().and_then(|name| name.parse::<VmId>().ok()));
        }
        vms.sort_unstable();
        Ok(vms)
    }

    fn free_bytes(&self) -> Result<Size, HostError> {
        let free = free_bytes(&self.vms).map_err(|error| {
            HostError::io("measure free space of", self.vms.display().to_string(), error)
        })?;
        Ok(Size::from_bytes(free))
    }
}

/// The file system of a disk, if the disk is there. One that is there and holds none is an error:
/// it may hold data, so it is not made anew.
fn sound(path: &Path) -> Result<Option<Superblock>, HostError> {
    let named = || path.display().to_string();
    let corrupt = || {
        HostError::new(Code::Corrupt, "use disk", named())
            .hint("restore the file from a backup, or delete the VM")
    };
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Err(corrupt().because("it is not a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HostError::io("look at", named(), error)),
    }
    let file = File::open(path).map_err(|error| HostError::io("open disk", named(), error))?;
    let superblock = Superblock::read(&file).map_err(|error| corrupt().because(error))?;
    let len = file.metadata().map_err(|error| HostError::io("look at", named(), error))?.len();
    if len < superblock.bytes() {
        return Err(
            corrupt().because(format!("it is cut short: {len} bytes of {}", superblock.bytes()))
        );
    }
    Ok(Some(superblock))
}

/// What a crash of an earlier daemon left of half-made disks.
fn remove_stale(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_stale_temp) {
            gone(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

/// Bytes on disk; a file that is not there takes none.
fn taken(path: &Path) -> Result<u64, HostError> {
    /// `st_blocks` counts in these, whatever the file system's blocks are (stat(2)).
    const UNIT: u64 = 512;
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(meta.blocks() * UNIT),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(HostError::io("measure", path.display().to_string(), error)),
    }
}

fn extend(path: &Path, bytes: u64) -> Result<(), HostError> {
    let failed = |error| HostError::io("grow disk", path.display().to_string(), error);
    let file = File::options().write(true).open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() >= bytes {
        return Ok(());
    }
    file.set_len(bytes).and_then(|()| file.sync_all()).map_err(failed)
}

fn remove_tree(dir: &Path) -> Result<(), HostError> {
    if !is_real_dir(dir)? {
        return Ok(());
    }
    gone(fs::remove_dir_all(dir))
        .map_err(|error| HostError::io("remove directory", dir.display().to_string(), error))
}

impl DiskHost for LocalDisks {
    fn paths(&self, vm: VmId) -> VmPaths {
        self.paths_of(vm)
    }

    fn choose<'a>(
        &'a self,
        op: OpId,
        choice: DiskChoice,
        base: &'a BaseImage,
    ) -> PortFuture<'a, RootDisk> {
        tracing::debug!(op_id = %op, ?choice, "choosing a disk back end");
        Box::pin(choose::root(&self.vms, self.helper.as_ref(), op, choice, base))
    }

    fn ensure_vm_disks<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        base: &'a BaseImage,
        seed: Option<&'a Path>,
    ) -> PortFuture<'a, ()> {
        let (this, plan, base) = (self.clone(), plan.clone(), base.clone());
        let seed = seed.map(Path::to_owned);
        tracing::debug!(op_id = %op, vm_id = %vm, "ensuring disks");
        Box::pin(blocking("make disks", move || this.make_disks(vm, &plan, &base, seed.as_deref())))
    }

    fn open_root<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        base: &'a BaseImage,
    ) -> PortFuture<'a, PathBuf> {
        let paths = self.paths_of(vm);
        Box::pin(async move {
            let (room, helper) = match (&plan.root, &self.helper) {
                (RootPlan::DmSnapshot { room }, Some(helper)) => (*room, helper),
                _ => {
                    return Err(HostError::new(Code::Invalid, "open root disk of", vm.short())
                        .because("it is no device"));
                }
            };
            let bytes = mapped::disk_bytes(base.size, room);
            let changes = paths.changes();
            blocking("grow disk", move || mapped::fit(&changes, bytes)).await?;
            mapped::open(helper, op, &paths, vm, &base.path, bytes).await
        })
    }

    fn check_disks<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        root: Option<&'a Path>,
        repair: bool,
    ) -> PortFuture<'a, Vec<CheckedDisk>> {
        let (paths, [file, work]) = (self.paths_of(vm), self.disks_of(vm, plan));
        let disks = [root.map_or(file, Path::to_owned), work];
        Box::pin(check::all(self.helper.as_ref(), op, vm, paths, disks, repair))
    }

    fn close_root(&self, op: OpId, vm: VmId) -> PortFuture<'_, ()> {
        Box::pin(async move {
            match &self.helper {
                Some(helper) => mapped::close(helper, op, vm).await,
                None => Ok(()),
            }
        })
    }

    fn open_roots(&self, op: OpId) -> PortFuture<'_, Vec<VmId>> {
        Box::pin(async move {
            match &self.helper {
                Some(helper) => mapped::list(helper, op).await,
                None => Ok(vec![]),
            }
        })
    }

    fn copy_disks<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        to: &'a Path,
    ) -> PortFuture<'a, ()> {
        let (this, plan, to) = (self.clone(), plan.clone(), to.to_owned());
        tracing::debug!(op_id = %op, vm_id = %vm, "copying disks");
        Box::pin(blocking("copy disks", move || this.copy_out(vm, &plan, &to)))
    }

    fn ensure_copied_disks<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        from: &'a Path,
    ) -> PortFuture<'a, ()> {
        let (this, plan, from) = (self.clone(), plan.clone(), from.to_owned());
        tracing::debug!(op_id = %op, vm_id = %vm, "ensuring copies of disks");
        Box::pin(blocking("copy disks", move || this.copy_in(vm, &plan, &from)))
    }

    fn as_made<'a>(&'a self, vm: VmId, plan: &'a DiskPlan) -> PortFuture<'a, DiskPlan> {
        let (this, plan) = (self.clone(), plan.clone());
        Box::pin(blocking("read disks", move || this.plan_as_made(vm, &plan)))
    }

    fn root_fill(&self, vm: VmId) -> PortFuture<'_, Size> {
        let paths = self.paths_of(vm);
        Box::pin(blocking("measure disk", move || {
            mapped::flush(vm);
            Ok(Size::from_bytes(taken(&paths.changes())?))
        }))
    }

    fn grow<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        base: &'a BaseImage,
    ) -> PortFuture<'a, ()> {
        let (paths, plan, base) = (self.paths_of(vm), plan.clone(), base.size);
        tracing::debug!(op_id = %op, vm_id = %vm, "growing disks");
        Box::pin(blocking("grow disks", move || {
            extend(&paths.work(), plan.work.bytes())?;
            match plan.root {
                RootPlan::Overlay { size, .. } => extend(&paths.overlay(), size.bytes()),
                RootPlan::Reflink { room } => {
                    extend(&paths.root(), reflink::root_bytes(base, room))
                }
                RootPlan::DmSnapshot { room } => {
                    mapped::fit(&paths.changes(), mapped::disk_bytes(base, room))
                }
            }
        }))
    }

    fn write_config<'a>(&'a self, op: OpId, vm: VmId, image: Vec<u8>) -> PortFuture<'a, ()> {
        let this = self.clone();
        tracing::debug!(op_id = %op, vm_id = %vm, "writing configuration drive");
        Box::pin(blocking("write configuration drive", move || this.put_config(vm, &image)))
    }

    fn remove_config<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        let config = self.paths_of(vm).config();
        tracing::debug!(op_id = %op, vm_id = %vm, "removing configuration drive");
        Box::pin(blocking("remove configuration drive", move || {
            gone(fs::remove_file(&config)).map_err(|error| {
                HostError::io("remove configuration drive", config.display().to_string(), error)
            })
        }))
    }

    fn ensure_run_dir<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        let this = self.clone();
        tracing::debug!(op_id = %op, vm_id = %vm, "ensuring run directory");
        Box::pin(blocking("make run directory", move || this.make_run_dir(vm)))
    }

    fn remove_run_dir<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        let run = self.paths_of(vm).run;
        tracing::debug!(op_id = %op, vm_id = %vm, "removing run directory");
        Box::pin(blocking("remove run directory", move || remove_tree(&run)))
    }

    fn ensure_saving<'a>(&'a self, op: OpId, vm: VmId, most: Size) -> PortFuture<'a, ()> {
        let this = self.clone();
        tracing::debug!(op_id = %op, vm_id = %vm, %most, "making room for memory");
        Box::pin(blocking("make room for memory", move || {
            saved::ensure_saving(&this.paths_of(vm), most, this.free_bytes()?)
        }))
    }

    fn keep_saved<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        by: &'a SavedBy,
        root: Option<&'a Path>,
    ) -> PortFuture<'a, ()> {
        let (paths, by, root) = (self.paths_of(vm), by.clone(), root.map(Path::to_owned));
        tracing::debug!(op_id = %op, vm_id = %vm, %by, "keeping memory");
        Box::pin(blocking("keep memory", move || saved::keep(&paths, &by, root.as_deref())))
    }

    fn unkeep_saved<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        let paths = self.paths_of(vm);
        tracing::debug!(op_id = %op, vm_id = %vm, "taking memory back");
        Box::pin(blocking("take memory back", move || saved::unkeep(&paths)))
    }

    fn discard_saving<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        let paths = self.paths_of(vm);
        tracing::debug!(op_id = %op, vm_id = %vm, "discarding what was written of memory");
        Box::pin(blocking("discard memory", move || saved::discard(&paths)))
    }

    fn copy_saving<'a>(&'a self, op: OpId, vm: VmId, to: &'a Path) -> PortFuture<'a, ()> {
        let (paths, to) = (self.paths_of(vm), to.to_owned());
        tracing::debug!(op_id = %op, vm_id = %vm, "copying memory");
        Box::pin(blocking("copy memory", move || saved::copy(&paths, &to)))
    }

    fn link_saved<'a>(&'a self, op: OpId, vm: VmId, from: &'a Path) -> PortFuture<'a, ()> {
        let (paths, from) = (self.paths_of(vm), from.to_owned());
        tracing::debug!(op_id = %op, vm_id = %vm, "linking memory");
        Box::pin(blocking("link memory", move || saved::link(&paths, &from)))
    }

    fn saved_by(&self, vm: VmId) -> PortFuture<'_, Option<SavedBy>> {
        let paths = self.paths_of(vm);
        Box::pin(blocking("look at saved memory", move || saved::saved_by(&paths)))
    }

    fn remove_saved<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        let dir = self.paths_of(vm).saved().dir;
        tracing::debug!(op_id = %op, vm_id = %vm, "removing saved memory");
        Box::pin(blocking("remove saved memory", move || saved::remove(&dir)))
    }

    fn remove_saving<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        let dir = self.paths_of(vm).saving().dir;
        tracing::debug!(op_id = %op, vm_id = %vm, "removing what memory is written to");
        Box::pin(blocking("remove what memory is written to", move || saved::remove(&dir)))
    }

    fn remove_vm<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        let dir = self.paths_of(vm).dir;
        tracing::debug!(op_id = %op, vm_id = %vm, "removing disks");
        Box::pin(blocking("remove disks", move || remove_tree(&dir)))
    }

    fn list(&self) -> PortFuture<'_, Vec<VmId>> {
        let this = self.clone();
        Box::pin(blocking("list disks", move || {
            this.vms().map_err(|error| HostError::io("list", this.vms.display().to_string(), error))
        }))
    }

    fn survey(&self, op: OpId) -> PortFuture<'_, HostSeen> {
        let (vms, run) = (self.vms.clone(), self.run.clone());
        Box::pin(async move {
            let mut seen = blocking("survey disks", move || {
                survey::files(&vms, &run)
                    .map_err(|error| HostError::io("survey", vms.display().to_string(), error))
            })
            .await?;
            if let Some(helper) = &self.helper {
                let mut host = survey_host(helper, op).await?;
                let ours = |kind| matches!(kind, ResourceKind::Device | ResourceKind::Loop);
                host.things.retain(|thing| ours(thing.kind));
                seen.things.extend(host.things);
            }
            Ok(seen)
        })
    }

    fn remove_run_dir_named<'a>(&'a self, op: OpId, name: &'a str) -> PortFuture<'a, ()> {
        let dir = self.run.join(name);
        let ours = survey::is_run_dir(name);
        tracing::debug!(op_id = %op, dir = %dir.display(), "removing run directory");
        Box::pin(blocking("remove run directory", move || match ours {
            true => remove_tree(&dir),
            false => Err(HostError::new(Code::Invalid, "remove", dir.display().to_string())),
        }))
    }

    fn detach_loop<'a>(&'a self, op: OpId, file: &'a Path) -> PortFuture<'a, ()> {
        Box::pin(mapped::detach(self.helper.as_ref(), op, file))
    }

    fn free(&self) -> PortFuture<'_, Size> {
        let this = self.clone();
        Box::pin(blocking("measure free space", move || this.free_bytes()))
    }

    fn usage(&self, vm: VmId) -> PortFuture<'_, DiskUsage> {
        let paths = self.paths_of(vm);
        Box::pin(blocking("measure disks", move || {
            // One of them is there. Blocks that a clone shares count for each of its owners.
            let roots = [paths.overlay(), paths.root(), paths.changes()];
            let root_bytes = roots.iter().map(|path| taken(path)).sum::<Result<u64, _>>()?;
            Ok(DiskUsage { root_bytes, work_bytes: taken(&paths.work())? })
        }))
    }

    fn cap_logs(&self, vm: VmId) -> PortFuture<'_, ()> {
        let paths = self.paths_of(vm);
        Box::pin(blocking("cap logs", move || {
            [paths.serial_log(), paths.vmm_log()].iter().try_for_each(|log| {
                logs::cap(log)
                    .map_err(|error| HostError::io("cap log", log.display().to_string(), error))
            })?;
            metrics::trim(&paths).map_err(|error| {
                let metrics = paths.firecracker_metrics();
                HostError::io("cap metrics", metrics.display().to_string(), error)
            })
        }))
    }

    fn read_log<'a>(&'a self, vm: VmId, log: LogKind, from: u64) -> PortFuture<'a, (Vec<u8>, u64)> {
        let paths = self.paths_of(vm);
        let log = match log {
            LogKind::Serial => paths.serial_log(),
            LogKind::Vmm => paths.vmm_log(),
        };
        Box::pin(blocking("read log", move || {
            logs::read_from(&log, from)
                .map_err(|error| HostError::io("read log", log.display().to_string(), error))
        }))
    }

    fn console_tail<'a>(&'a self, vm: VmId, lines: usize) -> PortFuture<'a, Vec<String>> {
        let log = self.paths_of(vm).serial_log();
        Box::pin(blocking("read console", move || {
            logs::tail(&log, lines)
                .map_err(|error| HostError::io("read console", log.display().to_string(), error))
        }))
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
