//! QEMU's command line, word by word.

use std::path::PathBuf;

use super::*;
use crate::host::vmm::sample;
use crate::model::{Code, chain};
use crate::ports::VmPaths;

const TCG: Machine = Machine { accelerator: Accelerator::Tcg, tsc_khz: Some(2_445_404) };
const KVM: Machine = Machine { accelerator: Accelerator::Kvm, tsc_khz: Some(2_445_404) };

/// With a comma, which separates what QEMU's options hold, in a path.
fn plan() -> BootPlan {
    let mut plan = sample::plan();
    plan.disks[1].path = "/vms/a,b/overlay.ext4".into();
    plan
}

/// The values given to `flag`, in order.
fn values(args: &[String], flag: &str) -> Vec<String> {
    args.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1].clone()).collect()
}

#[test]
fn the_whole_line_under_tcg() {
    let args = arguments(&plan(), TCG).unwrap();
    let dir = "/state/vms/abababababababababababababababab";
    let expected = format!(
        "-name banger-web,process=banger-web -uuid abababab-abab-abab-abab-abababababab \
         -M microvm,acpi=on,pit=on,pic=on,rtc=on -accel tcg,tb-size=256 -cpu max,erms=off -smp 2 -m 512M \
         -nodefaults -no-user-config -display none -no-reboot \
         -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
         -msg timestamp=on -global virtio-mmio.force-legacy=false -device virtio-rng-device \
         -chardev file,id=con,path={dir}/serial.log,append=on -serial chardev:con \
         -qmp unix:/run/b/abababababab/api.sock,server=on,wait=off \
         -device virtio-serial-device \
         -chardev socket,id=agent,path=/run/b/abababababab/control.sock,server=on,wait=off \
         -device virtserialport,chardev=agent,name=banger.agent.0 \
         -chardev socket,id=lane,path=/run/b/abababababab/lane.sock,server=on,wait=off \
         -device virtserialport,chardev=lane,name=banger.lane.0 \
         -drive file=/images/base.ext4,format=raw,if=none,id=d0,cache=writeback,readonly=on \
         -device virtio-blk-device,drive=d0 \
         -drive file=/vms/a,,b/overlay.ext4,format=raw,if=none,id=d1,cache=writeback,discard=unmap \
         -device virtio-blk-device,drive=d1 \
         -netdev tap,id=n0,ifname=bgt3,script=no,downscript=no \
         -device virtio-net-device,netdev=n0,mac=02:ba:ac:10:00:09 \
         -kernel /k/vmlinux -initrd /k/initrd -append"
    );
    let (append, rest) = args.split_last().unwrap();
    assert_eq!(rest.join(" "), expected);
    assert_eq!(
        append,
        "console=ttyS0 quiet reboot=t panic=-1 no_timer_check random.trust_cpu=on \
         cryptomgr.notests 8250.nr_uarts=1 mitigations=off norandmaps tsc_early_khz=2445404 tsc=reliable"
    );
}

#[test]
fn under_kvm_the_processor_is_the_hosts_and_its_clock_too() {
    let args = arguments(&plan(), KVM).unwrap();
    assert_eq!(values(&args, "-accel"), ["kvm"]);
    assert_eq!(values(&args, "-cpu"), ["host"]);
    let append = args.last().unwrap();
    for word in ["tsc", "mitigations", "norandmaps"] {
        assert!(!append.contains(word), "{append}");
    }
}

#[test]
fn an_unsteady_counter_is_not_told() {
    let args = arguments(&plan(), Machine { tsc_khz: None, ..TCG }).unwrap();
    assert!(!args.last().unwrap().contains("tsc"));
}

#[test]
fn a_socket_path_too_long_is_refused_before_the_start() {
    let run = PathBuf::from(format!("/{}", "r".repeat(90)));
    let mut plan = plan();
    plan.paths = VmPaths::new("/state/vms".as_ref(), &run, plan.vm);
    let error = arguments(&plan, TCG).unwrap_err();
    assert_eq!(error.code, Code::Invalid);
    assert!(chain(&error).contains("at most 107 bytes"), "{error:?}");
}

#[test]
fn a_relative_path_is_refused() {
    let plan = BootPlan { kernel: "vmlinux".into(), ..plan() };
    assert_eq!(arguments(&plan, TCG).unwrap_err().code, Code::Invalid);
}

#[test]
fn a_guest_that_resumes_waits_for_its_memory_and_stands_still() {
    let boots = arguments(&plan(), KVM).unwrap();
    let resumes = arguments(&BootPlan { resume: true, ..plan() }, KVM).unwrap();
    let (same, more) = resumes.split_at(boots.len());
    assert_eq!(same, boots, "the machine is the same");
    assert_eq!(more, ["-incoming", "defer", "-S"]);
}
