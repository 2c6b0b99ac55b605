//! Steps that take a VM's run away. They go forward only, find everything by the VM's own
//! identity and succeed when there is nothing to take away, so that no lost handle stops them.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::step::no_undo;
use super::{Step, StepCx, StepError};
use crate::model::{DiskBackend, ResourceKind};

const FORWARD: &str = "what tears down goes forward only";

/// After the guest was asked, or instead of it: the process ends, then what it used goes, and what
/// was kept of its memory.
pub(super) fn end_steps() -> Vec<Box<dyn Step>> {
    let mut steps = free_steps();
    steps.push(Box::new(RemoveSaved));
    steps
}

/// The process ends, and what it used goes.
pub(super) fn free_steps() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(KillVmm),
        Box::new(CloseRoot),
        Box::new(RemoveNat),
        Box::new(ReleaseTap),
        Box::new(RemoveRunDir),
        Box::new(RemoveConfig),
        Box::new(RemoveSaving),
    ]
}

macro_rules! forward_step {
    ($(#[$doc:meta])* $type:ident, $name:literal, [$($kind:ident)*], |$cx:ident| $body:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $type;

        impl Step for $type {
            fn name(&self) -> &'static str {
                $name
            }

            fn frees(&self) -> &'static [ResourceKind] {
                &[$(ResourceKind::$kind),*]
            }

            fn run<'a>(&'a self, $cx: &'a StepCx) -> BoxFuture<'a, Result<String, StepError>> {
                async move { $body }.boxed()
            }

            fn undo<'a>(&'a self, _cx: &'a StepCx) -> BoxFuture<'a, Result<(), StepError>> {
                no_undo(FORWARD)
            }
        }
    };
}

forward_step!(
    /// First: nobody is sent to a guest that is about to go.
    WithdrawName, "withdraw-name", [], |cx| {
        cx.ports.names.withdraw(cx.op, &cx.vm.spec.name, cx.vm.address).await?;
        Ok(String::new())
    }
);

forward_step!(KillVmm, "kill-vmm", [Process Cgroup Jail], |cx| {
    let exit = cx.ports.process.ensure_gone(cx.op, cx.vm.id).await?;
    cx.observed.clear();
    Ok(exit.map_or_else(|| "gone already".to_owned(), |exit| exit.how))
});

forward_step!(
    /// What a guest wrote is in a file; the device over it goes with the run.
    CloseRoot, "close-root", [Device], |cx| {
        if cx.vm.spec.root.backend == DiskBackend::DmSnapshot {
            cx.ports.disk.close_root(cx.op, cx.vm.id).await?;
        }
        Ok(String::new())
    }
);

forward_step!(
    /// Of a VM that may have none by its record.
    DropDevice, "drop-device", [Device], |cx| {
        cx.ports.disk.close_root(cx.op, cx.vm.id).await?;
        Ok(String::new())
    }
);

forward_step!(RemoveNat, "remove-nat", [Nat], |cx| {
    cx.ports.net.remove_nat(cx.op, cx.vm.id, cx.vm.address).await?;
    Ok(String::new())
});

forward_step!(ReleaseTap, "release-tap", [], |cx| {
    cx.ports.taps.release(cx.op, cx.vm.id).await?;
    Ok(String::new())
});

forward_step!(RemoveRunDir, "remove-run-dir", [RunDir], |cx| {
    cx.ports.disk.remove_run_dir(cx.op, cx.vm.id).await?;
    Ok(String::new())
});

forward_step!(
    /// It holds the VM's private keys.
    RemoveConfig, "remove-config", [Config], |cx| {
        cx.ports.disk.remove_config(cx.op, cx.vm.id).await?;
        Ok(String::new())
    }
);

forward_step!(RemoveSaving, "remove-saving", [], |cx| {
    cx.ports.disk.remove_saving(cx.op, cx.vm.id).await?;
    Ok(String::new())
});

forward_step!(RemoveSaved, "remove-saved", [Memory], |cx| {
    cx.ports.disk.remove_saved(cx.op, cx.vm.id).await?;
    Ok(String::new())
});

forward_step!(RemoveDisks, "remove-disks", [VmDir], |cx| {
    cx.ports.disk.remove_vm(cx.op, cx.vm.id).await?;
    Ok(String::new())
});
