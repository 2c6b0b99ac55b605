//! What steps find out for each other and for the VM's actor: it is not in their outputs' types,
//! so it has a place of its own. Held in memory; after a crash the steps' outputs refill it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::StepError;
use super::warm::Origin;
use crate::model::{ProcessIdentity, SavedBy, TapName, VmHandles, VmmKind};
use crate::ports::BootFiles;

#[derive(Clone, Debug, Default)]
pub struct Observed(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    boot: Option<BootFiles>,
    root_device: Option<PathBuf>,
    vmm: Option<VmmKind>,
    handles: VmHandles,
    resumes: bool,
    saved_by: Option<SavedBy>,
    origin: Option<Origin>,
}

impl Observed {
    /// The VM's handles as far as they are known by now.
    #[must_use]
    pub fn handles(&self) -> VmHandles {
        self.with(|seen| seen.handles.clone())
    }

    pub(super) fn set_boot(&self, files: BootFiles) {
        self.with(|seen| seen.boot = Some(files));
    }

    pub(super) fn boot(&self) -> Result<BootFiles, StepError> {
        self.with(|seen| seen.boot.clone()).ok_or(StepError::Missing("boot files"))
    }

    pub(super) fn set_root_device(&self, path: PathBuf) {
        self.with(|seen| seen.root_device = Some(path));
    }

    pub(super) fn root_device(&self) -> Result<PathBuf, StepError> {
        self.with(|seen| seen.root_device.clone()).ok_or(StepError::Missing("root disk"))
    }

    pub(super) fn set_tap(&self, tap: TapName) {
        self.with(|seen| seen.handles.tap = Some(tap));
    }

    pub(super) fn tap(&self) -> Result<TapName, StepError> {
        self.with(|seen| seen.handles.tap.clone()).ok_or(StepError::Missing("tap"))
    }

    pub(super) fn set_process(&self, process: ProcessIdentity) {
        self.with(|seen| seen.handles.process = Some(process));
    }

    pub(super) fn process(&self) -> Result<ProcessIdentity, StepError> {
        self.with(|seen| seen.handles.process.clone()).ok_or(StepError::Missing("process"))
    }

    pub(super) fn set_vmm(&self, vmm: String) {
        self.with(|seen| {
            seen.vmm = VmmKind::described(&vmm);
            seen.handles.vmm = Some(vmm);
        });
    }

    /// Which VMM the VM is started on.
    pub(super) fn vmm(&self) -> Result<VmmKind, StepError> {
        self.with(|seen| seen.vmm).ok_or(StepError::Missing("VMM"))
    }

    pub(super) fn set_saved_by(&self, by: SavedBy) {
        self.with(|seen| seen.saved_by = Some(by));
    }

    pub(super) fn saved_by(&self) -> Result<SavedBy, StepError> {
        self.with(|seen| seen.saved_by.clone()).ok_or(StepError::Missing("saved memory"))
    }

    /// The VM continues with its saved memory.
    pub(super) fn set_resumes(&self, resumes: bool) {
        self.with(|seen| seen.resumes = resumes);
    }

    pub(super) fn resumes(&self) -> bool {
        self.with(|seen| seen.resumes)
    }

    pub(super) fn set_origin(&self, origin: Origin) {
        self.with(|seen| seen.origin = Some(origin));
    }

    /// How the VM gets its guest, if that was chosen.
    pub(super) fn origin(&self) -> Option<Origin> {
        self.with(|seen| seen.origin.clone())
    }

    pub(super) fn set_guest_boot_id(&self, boot_id: String) {
        self.with(|seen| seen.handles.guest_boot_id = Some(boot_id));
    }

    /// What was seen of the process and in it is history.
    pub(super) fn forget_process(&self) {
        self.with(|seen| {
            seen.handles.process = None;
            seen.handles.guest_boot_id = None;
        });
    }

    /// Nothing runs any more.
    pub(super) fn clear(&self) {
        self.with(|seen| seen.handles = VmHandles::default());
    }

    fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
