//! VMs' files, of which there are none: the world only knows whose there would be.

use std::path::{Path, PathBuf};

use futures::FutureExt;

use super::SimWorld;
use super::guest::BLANK;
use super::state::State;
use super::world::{SimMemory, VERSION};
use crate::model::{
    Code, DiskBackend, DiskChoice, DiskUsage, HostSeen, OpId, ResourceKind, RootDisk, SavedBy,
    Size, VmId, VmmKind,
};
use crate::ports::{
    BaseImage, CheckedDisk, DiskHost, DiskPlan, HostError, LogKind, PortFuture, RootPlan, VmPaths,
};

const CONSOLE: [&str; 2] = ["[sim] booting", "[sim] agent started"];
const FREE: Size = Size::from_bytes(1 << 40);
/// What the agent's configuration drive may hold at most.
const MAX_CONFIG: usize = 1 << 20;

impl DiskHost for SimWorld {
    fn paths(&self, vm: VmId) -> VmPaths {
        VmPaths::new(&self.options.vms_dir, &self.options.run_dir, vm)
    }

    /// It has all of them; left to itself it takes the plainest.
    fn choose<'a>(
        &'a self,
        _op: OpId,
        choice: DiskChoice,
        _base: &'a BaseImage,
    ) -> PortFuture<'a, RootDisk> {
        let (backend, why) = match choice {
            DiskChoice::Auto => (DiskBackend::Overlay, "the host is simulated"),
            DiskChoice::Only(backend) => (backend, "asked for"),
        };
        self.call("disk.choose", move |_| Ok(RootDisk { backend, why: why.to_owned() })).boxed()
    }

    fn ensure_vm_disks<'a>(
        &'a self,
        _op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        _base: &'a BaseImage,
        _seed: Option<&'a Path>,
    ) -> PortFuture<'a, ()> {
        let make = move |state: &mut State| {
            let (RootPlan::Overlay { size: root, .. }
            | RootPlan::Reflink { room: root }
            | RootPlan::DmSnapshot { room: root }) = plan.root;
            if root.bytes() == 0 || plan.work.bytes() == 0 {
                return Err(HostError::new(Code::Invalid, "make disks of VM", vm.short()));
            }
            state.world.disks.entry(vm).or_insert_with(|| plan.clone());
            Ok(())
        };
        self.call("disk.ensure_vm_disks", make).boxed()
    }

    fn open_root<'a>(
        &'a self,
        _op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        _base: &'a BaseImage,
    ) -> PortFuture<'a, PathBuf> {
        let open = move |state: &mut State| {
            let refuse = |code| Err(HostError::new(code, "open root disk of", vm.short()));
            if !matches!(plan.root, RootPlan::DmSnapshot { .. }) {
                return refuse(Code::Invalid);
            }
            if !state.world.disks.contains_key(&vm) {
                return refuse(Code::NotFound);
            }
            state.world.open_roots.insert(vm);
            Ok(format!("/sim/dev/{vm}").into())
        };
        self.call("disk.open_root", open).boxed()
    }

    /// Refuses what would ruin a file system: checking it while somebody has it.
    fn check_disks<'a>(
        &'a self,
        _op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        root: Option<&'a Path>,
        repair: bool,
    ) -> PortFuture<'a, Vec<CheckedDisk>> {
        let check = move |state: &mut State| {
            let refuse = |code, why: &str| {
                Err(HostError::new(code, "check disks of VM", vm.short()).because(why.to_owned()))
            };
            let kept = state.world.memory.get(&vm).is_some_and(|memory| memory.kept);
            if !state.world.disks.contains_key(&vm) {
                return refuse(Code::NotFound, "it has none");
            } else if state.world.processes.contains_key(&vm) {
                return refuse(Code::Conflict, "its VMM has them open");
            } else if kept {
                return refuse(Code::Conflict, "its memory knows what is on them");
            } else if matches!(plan.root, RootPlan::DmSnapshot { .. })
                && (root.is_none() || !state.world.open_roots.contains(&vm))
            {
                return refuse(Code::NotFound, "its root disk is not open");
            } else if state.world.damaged.contains(&vm) && !repair {
                return refuse(Code::Corrupt, "e2fsck does not put right what it found");
            }
            let path = self.paths(vm).work();
            let corrected = state.world.damaged.remove(&vm).then(|| vec!["put right".to_owned()]);
            let why = "it is damaged";
            Ok(corrected
                .map(|said| CheckedDisk { path, why, corrected: Some(said) })
                .into_iter()
                .collect())
        };
        self.call("disk.check_disks", check).boxed()
    }

    fn close_root(&self, _op: OpId, vm: VmId) -> PortFuture<'_, ()> {
        let close = move |state: &mut State| {
            if state.world.processes.contains_key(&vm) && state.world.open_roots.contains(&vm) {
                return Err(HostError::new(Code::Conflict, "close root disk of", vm.short())
                    .because("its VMM has it open"));
            }
            state.world.open_roots.remove(&vm);
            Ok(())
        };
        self.call("disk.close_root", close).boxed()
    }

    fn open_roots(&self, _op: OpId) -> PortFuture<'_, Vec<VmId>> {
        let list = |state: &mut State| Ok(state.world.open_roots.iter().copied().collect());
        self.call("disk.open_roots", list).boxed()
    }

    fn copy_disks<'a>(
        &'a self,
        _op: OpId,
        vm: VmId,
        _plan: &'a DiskPlan,
        to: &'a Path,
    ) -> PortFuture<'a, ()> {
        let copy = move |state: &mut State| {
            if !state.world.disks.contains_key(&vm) {
                return Err(HostError::new(Code::NotFound, "copy disks of VM", vm.short()));
            }
            state.copied.insert(to.to_owned());
            Ok(())
        };
        self.call("disk.copy_disks", copy).boxed()
    }

    fn ensure_copied_disks<'a>(
        &'a self,
        _op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        from: &'a Path,
    ) -> PortFuture<'a, ()> {
        let make = move |state: &mut State| {
            if !state.world.snapshots.contains_key(from) {
                let from = from.display().to_string();
                return Err(HostError::new(Code::NotFound, "copy disks from", from));
            }
            state.world.disks.entry(vm).or_insert_with(|| plan.clone());
            Ok(())
        };
        self.call("disk.ensure_copied_disks", make).boxed()
    }

    fn as_made<'a>(&'a self, vm: VmId, _plan: &'a DiskPlan) -> PortFuture<'a, DiskPlan> {
        let read = move |state: &mut State| {
            let plan = state.world.disks.get(&vm).cloned();
            plan.ok_or_else(|| HostError::new(Code::NotFound, "read disks of VM", vm.short()))
        };
        self.call("disk.as_made", read).boxed()
    }

    fn root_fill(&self, vm: VmId) -> PortFuture<'_, Size> {
        let fill = move |state: &mut State| {
            Ok(state.world.fills.get(&vm).copied().unwrap_or(Size::from_bytes(0)))
        };
        self.call("disk.root_fill", fill).boxed()
    }

    fn grow<'a>(
        &'a self,
        _op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        _base: &'a BaseImage,
    ) -> PortFuture<'a, ()> {
        let grow = move |state: &mut State| match state.world.disks.get_mut(&vm) {
            Some(disks) => {
                disks.clone_from(plan);
                Ok(())
            }
            None => Err(HostError::new(Code::NotFound, "grow disks of VM", vm.short())),
        };
        self.call("disk.grow", grow).boxed()
    }

    fn write_config<'a>(&'a self, _op: OpId, vm: VmId, image: Vec<u8>) -> PortFuture<'a, ()> {
        let write = move |state: &mut State| {
            let refuse = |code| Err(HostError::new(code, "write configuration of VM", vm.short()));
            if image.is_empty() || image.len() > MAX_CONFIG {
                return refuse(Code::Invalid);
            }
            if !state.world.disks.contains_key(&vm) {
                return refuse(Code::NotFound); // no directory to write it in
            }
            state.world.configs.insert(vm);
            match image == BLANK {
                true => state.blank.insert(vm),
                false => state.blank.remove(&vm),
            };
            Ok(())
        };
        self.call("disk.write_config", write).boxed()
    }

    fn remove_config<'a>(&'a self, _op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        let remove = move |state: &mut State| {
            state.world.configs.remove(&vm);
            Ok(())
        };
        self.call("disk.remove_config", remove).boxed()
    }

    fn ensure_run_dir<'a>(&'a self, _op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        let make = move |state: &mut State| {
            state.world.run_dirs.insert(vm);
            Ok(())
        };
        self.call("disk.ensure_run_dir", make).boxed()
    }

    fn remove_run_dir<'a>(&'a self, _op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        let remove = move |state: &mut State| {
            state.world.run_dirs.remove(&vm);
            Ok(())
        };
        self.call("disk.remove_run_dir", remove).boxed()
    }

    fn ensure_saving<'a>(&'a self, _op: OpId, vm: VmId, most: Size) -> PortFuture<'a, ()> {
        let make = move |state: &mut State| {
            if most > FREE {
                return Err(HostError::new(Code::NoSpace, "save memory of VM", vm.short()));
            }
            if !state.world.disks.contains_key(&vm) {
                return Err(HostError::new(Code::NotFound, "save memory of VM", vm.short()));
            }
            state.drop_memory(vm, false)
        };
        self.call("disk.ensure_saving", make).boxed()
    }

    fn keep_saved<'a>(
        &'a self,
        _op: OpId,
        vm: VmId,
        by: &'a SavedBy,
        _root: Option<&'a Path>,
    ) -> PortFuture<'a, ()> {
        let keep = move |state: &mut State| {
            let missing = || HostError::new(Code::NotFound, "keep memory of VM", vm.short());
            let memory = state.world.memory.get_mut(&vm).ok_or_else(missing)?;
            memory.kept = true;
            memory.version.clone_from(&by.version);
            Ok(())
        };
        self.call("disk.keep_saved", keep).boxed()
    }

    fn unkeep_saved<'a>(&'a self, _op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        let unkeep = move |state: &mut State| {
            if let Some(memory) = state.world.memory.get_mut(&vm) {
                memory.kept = false;
            }
            Ok(())
        };
        self.call("disk.unkeep_saved", unkeep).boxed()
    }

    fn discard_saving<'a>(&'a self, _op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        self.call("disk.discard_saving", move |state| state.drop_memory(vm, false)).boxed()
    }

    fn copy_saving<'a>(&'a self, _op: OpId, vm: VmId, to: &'a Path) -> PortFuture<'a, ()> {
        let copy = move |state: &mut State| {
            if !state.world.memory.contains_key(&vm) {
                return Err(HostError::new(Code::NotFound, "copy memory of VM", vm.short()));
            }
            state.copied.insert(to.join("memory"));
            Ok(())
        };
        self.call("disk.copy_saving", copy).boxed()
    }

    fn link_saved<'a>(&'a self, _op: OpId, vm: VmId, from: &'a Path) -> PortFuture<'a, ()> {
        let link = move |state: &mut State| {
            if !state.world.snapshots.contains_key(from) {
                let from = from.display().to_string();
                return Err(HostError::new(Code::NotFound, "link memory in", from));
            }
            let memory = SimMemory { kept: true, boot: 0, version: VERSION.to_owned() };
            state.world.memory.insert(vm, memory);
            state.blank_memory.insert(vm);
            Ok(())
        };
        self.call("disk.link_saved", link).boxed()
    }

    fn saved_by(&self, vm: VmId) -> PortFuture<'_, Option<SavedBy>> {
        let read = move |state: &mut State| {
            let kept = state.world.memory.get(&vm).filter(|memory| memory.kept);
            Ok(kept.map(|memory| SavedBy {
                kind: VmmKind::Sim,
                version: memory.version.clone(),
                accelerator: "none".to_owned(),
            }))
        };
        self.call("disk.saved_by", read).boxed()
    }

    fn remove_saved<'a>(&'a self, _op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        self.call("disk.remove_saved", move |state| state.drop_memory(vm, true)).boxed()
    }

    fn remove_saving<'a>(&'a self, _op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        self.call("disk.remove_saving", move |state| state.drop_memory(vm, false)).boxed()
    }

    fn remove_vm<'a>(&'a self, _op: OpId, vm: VmId) -> PortFuture<'a, ()> {
        let remove = move |state: &mut State| {
            if state.world.open_roots.contains(&vm) {
                return Err(HostError::new(Code::Conflict, "remove disks of", vm.short())
                    .because("its root disk is open"));
            }
            state.world.disks.remove(&vm);
            state.world.damaged.remove(&vm);
            state.world.configs.remove(&vm); // it lies in the same directory
            state.world.memory.remove(&vm);
            state.blank_memory.remove(&vm);
            state.exits.remove(&vm);
            Ok(())
        };
        self.call("disk.remove_vm", remove).boxed()
    }

    fn list(&self) -> PortFuture<'_, Vec<VmId>> {
        let list = |state: &mut State| Ok(state.world.disks.keys().copied().collect());
        self.call("disk.list", list).boxed()
    }

    fn survey(&self, _op: OpId) -> PortFuture<'_, HostSeen> {
        use ResourceKind as K;
        let look = |state: &mut State| {
            let things = state.world.things().into_iter();
            let others = |kind| matches!(kind, K::Process | K::Cgroup | K::Jail | K::Nat);
            let things = things.filter(|thing| !others(thing.kind)).collect();
            let mut seen = HostSeen { things, ..HostSeen::default() };
            for file in &state.world.loops {
                seen.add(K::Loop, file.display().to_string(), None);
            }
            Ok(seen)
        };
        self.call("disk.survey", look).boxed()
    }

    fn remove_run_dir_named<'a>(&'a self, _op: OpId, name: &'a str) -> PortFuture<'a, ()> {
        let remove = move |state: &mut State| {
            state.world.run_dirs.retain(|vm| vm.short() != name);
            Ok(())
        };
        self.call("disk.remove_run_dir_named", remove).boxed()
    }

    fn detach_loop<'a>(&'a self, _op: OpId, file: &'a Path) -> PortFuture<'a, ()> {
        let detach = move |state: &mut State| {
            state.world.loops.remove(file);
            Ok(())
        };
        self.call("disk.detach_loop", detach).boxed()
    }

    fn free(&self) -> PortFuture<'_, Size> {
        let free =
            |state: &mut State| Ok(if state.world.full { Size::from_bytes(0) } else { FREE });
        self.call("disk.free", free).boxed()
    }

    fn usage(&self, vm: VmId) -> PortFuture<'_, DiskUsage> {
        let usage = move |state: &mut State| {
            let made = state.world.disks.contains_key(&vm);
            let bytes = |bytes| if made { bytes } else { 0 };
            Ok(DiskUsage { root_bytes: bytes(3 << 20), work_bytes: bytes(1 << 20) })
        };
        self.call("disk.usage", usage).boxed()
    }

    fn cap_logs(&self, _vm: VmId) -> PortFuture<'_, ()> {
        self.call("disk.cap_logs", |_| Ok(())).boxed()
    }

    fn read_log<'a>(&'a self, vm: VmId, log: LogKind, from: u64) -> PortFuture<'a, (Vec<u8>, u64)> {
        let read = move |state: &mut State| {
            let booted = log == LogKind::Serial && state.has_booted(vm);
            let text = if booted {
                CONSOLE.map(|line| format!("{line}\n")).concat()
            } else {
                String::new()
            };
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            let rest = text.as_bytes().get(from..).unwrap_or_default().to_vec();
            Ok((rest, text.len() as u64))
        };
        self.call("disk.read_log", read).boxed()
    }

    fn console_tail<'a>(&'a self, vm: VmId, lines: usize) -> PortFuture<'a, Vec<String>> {
        let tail = move |state: &mut State| {
            let shown = if state.has_booted(vm) { lines.min(CONSOLE.len()) } else { 0 };
            Ok(CONSOLE[CONSOLE.len() - shown..].iter().map(|line| (*line).to_owned()).collect())
        };
        self.call("disk.console_tail", tail).boxed()
    }
}

impl State {
    fn drop_memory(&mut self, vm: VmId, kept: bool) -> Result<(), HostError> {
        if self.world.memory.get(&vm).is_some_and(|memory| memory.kept == kept) {
            self.world.memory.remove(&vm);
        }
        Ok(())
    }

    fn has_booted(&self, vm: VmId) -> bool {
        self.world.processes.contains_key(&vm) || self.exits.contains_key(&vm)
    }
}
