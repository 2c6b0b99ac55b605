//! A boot plan for tests, the same for every VMM.

use std::net::Ipv4Addr;

use crate::model::{Mac, TapName, VmId};
use crate::ports::{BootPlan, DiskAttachment, VmPaths};

pub(super) fn plan() -> BootPlan {
    let vm = VmId([0xab; 16]);
    BootPlan {
        vm,
        name: "web".into(),
        vcpu: 2,
        memory_mib: 512,
        kernel: "/k/vmlinux".into(),
        initrd: "/k/initrd".into(),
        disks: vec![
            DiskAttachment { path: "/images/base.ext4".into(), read_only: true },
            DiskAttachment { path: "/vms/a/overlay.ext4".into(), read_only: false },
        ],
        resume: false,
        memory_is_shared: false,
        tap: TapName::new("bgt", 3),
        mac: Mac::for_address(Ipv4Addr::new(172, 16, 0, 9)),
        console: false,
        paths: VmPaths::new("/state/vms".as_ref(), "/run/b".as_ref(), vm),
    }
}
