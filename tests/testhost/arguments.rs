//! QEMU's command line, the same at save and restore.

use std::path::Path;

use crate::image;

/// The clock of the processor is as steady as the emulation's; told so, the kernel does without the
/// HPET, each reading of which costs an exit. Everything is two to five times as fast with it.
const KERNEL_LINE: &str = "console=ttyS0 root=/dev/vda rw panic=-1 quiet systemd.show_status=false \
                           tsc=reliable clocksource=tsc mitigations=off";

/// Everything that both sides of a saved state must have alike. Addresses are fixed, because what
/// is found at another place after a restore is another device.
pub(crate) fn arguments(dir: &Path, image: &Path, disk: &Path) -> Vec<String> {
    let dir = escaped(dir);
    let device = |name: &str, slot: u32| format!("{name},bus=pcie.0,addr={slot}");
    let disk =
        format!("file={},format=qcow2,if=none,id=disk0,cache=unsafe,discard=unmap", escaped(disk));
    let agent = format!("socket,id=agent,path={dir}/agent.sock,server=on,wait=off");
    let qmp = format!("unix:{dir}/qmp.sock,server=on,wait=off");
    let (kernel, initrd) = (image::kernel(image), image::initrd(image));
    let pairs = [
        ("-M", "q35".to_owned()),
        ("-accel", "tcg,thread=multi".to_owned()),
        ("-cpu", "EPYC-Rome,+svm".to_owned()),
        ("-smp", "2".to_owned()),
        ("-m", "3072".to_owned()),
        ("-serial", format!("file:{dir}/console.log")),
        ("-drive", disk),
        ("-device", device("virtio-blk-pci,drive=disk0", 3)),
        // What files are brought in by; empty while a state is saved.
        ("-device", device("pcie-root-port,id=plug,chassis=1,slot=1", 4)),
        ("-device", device("virtio-serial-pci", 5)),
        ("-chardev", agent),
        ("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0".to_owned()),
        ("-chardev", format!("file,id=out,path={dir}/out.log")),
        ("-device", "virtserialport,chardev=out,name=banger.out".to_owned()),
        ("-chardev", format!("file,id=journal,path={dir}/journal.log")),
        ("-device", "virtserialport,chardev=journal,name=banger.journal".to_owned()),
        ("-device", device("virtio-rng-pci", 6)),
        ("-netdev", "user,id=net0,restrict=on".to_owned()),
        ("-device", device("virtio-net-pci,netdev=net0,romfile=", 7)),
        ("-qmp", qmp),
        ("-kernel", kernel.display().to_string()),
        ("-initrd", initrd.display().to_string()),
        ("-append", KERNEL_LINE.to_owned()),
    ];
    let flags = ["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"].map(str::to_owned);
    flags.into_iter().chain(pairs.into_iter().flat_map(|(k, v)| [k.to_owned(), v])).collect()
}

/// QEMU separates options by commas.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
