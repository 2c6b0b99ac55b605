//! From what the daemon knows of a VM to the bytes of its configuration drive. Pure.

use banger_agent::contract::config::{Control, GuestConfig, NetConfig, RootLayout};
use banger_agent::contract::control;
use banger_agent::contract::drive::{self, Boot};
use banger_agent::contract::image::{ImageStart, Init, Main};

use crate::model::{Code, ImageInit, ImageUse, OpId, VmmKind};
use crate::ports::{GuestSetup, HostError, RootPlan};

/// Where the guest's SSH server listens.
pub const SSH_PORT: u16 = 22;
/// Guests find each other by bare name as well as by `<name>.vm`.
const SEARCH: &str = "vm";
const ROOT: &str = "root";

pub(super) fn config_drive(
    op: OpId,
    setup: &GuestSetup,
    owner_keys: &[String],
) -> Result<Vec<u8>, HostError> {
    let guest = guest_config(op, setup, owner_keys);
    encoded(&Boot { guest, image: image_start(setup) }, setup)
}

/// Nothing of the VM is in it, for what is in it is in the memory of others too.
pub(super) fn blank_drive(op: OpId, setup: &GuestSetup) -> Result<Vec<u8>, HostError> {
    let GuestConfig { root, work, control, ssh_port, .. } = guest_config(op, setup, &[]);
    let blank = GuestConfig {
        vm_id: [0; 16],
        hostname: String::new(),
        net: None,
        authorized_keys: vec![],
        host_key: String::new(),
        root,
        work,
        env: vec![],
        op_id: op.0,
        control,
        ssh_port,
    };
    // Its init is the one thing of the image that a boot comes to before anybody is told of.
    let init = image_start(setup).init;
    encoded(&Boot { guest: blank, image: ImageStart { init, ..ImageStart::default() } }, setup)
}

fn encoded(boot: &Boot, setup: &GuestSetup) -> Result<Vec<u8>, HostError> {
    let drive = drive::encode(boot).and_then(|bytes| {
        // Read as the agent will read it: what it would refuse must not be written.
        drive::needed_bytes(&bytes)?;
        Ok(bytes)
    });
    drive.map_err(|error| {
        let name = setup.record.spec.name.to_string();
        HostError::new(Code::Invalid, "write configuration drive of", name).because(error)
    })
}

pub(super) fn guest_config(op: OpId, setup: &GuestSetup, owner_keys: &[String]) -> GuestConfig {
    let GuestSetup { record, image, subnet, dns, base_uuid, disks, vmm } = setup;
    let own = &record.spec.env;
    GuestConfig {
        vm_id: record.id.0,
        hostname: record.spec.name.to_string(),
        net: Some(NetConfig {
            mac: record.mac().0,
            address: record.address,
            prefix_len: subnet.prefix_len(),
            gateway: subnet.gateway(),
            dns: dns.clone(),
            search: Some(SEARCH.to_owned()),
        }),
        authorized_keys: [std::slice::from_ref(&record.keys.client_public), owner_keys].concat(),
        host_key: record.keys.host_private.clone(),
        root: match disks.root {
            RootPlan::Overlay { uuid, .. } => {
                RootLayout::Overlay { base: *base_uuid, overlay: uuid }
            }
            RootPlan::Reflink { .. } | RootPlan::DmSnapshot { .. } => {
                RootLayout::Plain { disk: *base_uuid }
            }
        },
        work: Some(disks.work_uuid),
        env: image.as_ref().map_or_else(|| own.clone(), |image| image.config.env_with(own)),
        op_id: op.0,
        control: control_on(*vmm),
        ssh_port: SSH_PORT,
    }
}

pub(super) fn image_start(setup: &GuestSetup) -> ImageStart {
    let Some(ImageUse { config, runs }) = &setup.image else { return ImageStart::default() };
    let argv = config.program();
    let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let main = (*runs && !argv.is_empty()).then(|| Main {
        argv,
        cwd: said(&config.workdir),
        user: said(&config.user).unwrap_or_else(|| ROOT.to_owned()),
        stop_signal: said(&config.stop_signal),
    });
    let init = match config.init() {
        ImageInit::Any => Init::Any,
        ImageInit::Systemd => Init::Systemd,
        ImageInit::Program(program) => Init::Program(program),
    };
    ImageStart { init, directories: config.directories(), main }
}

fn control_on(vmm: VmmKind) -> Control {
    match vmm {
        VmmKind::Firecracker => Control::Vsock { port: control::VSOCK_PORT },
        VmmKind::Qemu | VmmKind::Sim => {
            Control::VirtioSerial { name: control::PORT_NAME.to_owned() }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use super::super::make_keys;
    use super::*;
    use crate::model::{
        Digest, DiskBackend, ImageConfig, Name, RestartHistory, RestartPolicy, RootDisk, Size,
        VmId, VmRecord, VmSpec, VmState, VmmChoice, Wanted,
    };
    use crate::ports::DiskPlan;

    pub(in crate::host::guest) fn setup(env: Vec<(String, String)>) -> GuestSetup {
        setup_on(DiskBackend::Overlay, env)
    }

    fn setup_on(backend: DiskBackend, env: Vec<(String, String)>) -> GuestSetup {
        let id = VmId([9; 16]);
        let (disk, work_disk) = (Size::from_mib(64), Size::from_mib(32));
        let spec = VmSpec {
            name: Name::vm("web").unwrap(),
            image: "debian".into(),
            kernel: "k".into(),
            vcpu: 1,
            memory_mib: 256,
            disk,
            work_disk,
            nat: false,
            env,
            vmm: VmmChoice::Auto,
            warm: false,
            restart: RestartPolicy::No,
            health: None,
            root: RootDisk { backend, why: String::new() },
            console: false,
        };
        let disks = DiskPlan::for_vm(id, &spec);
        let record = VmRecord {
            id,
            spec,
            state: VmState::Created,
            address: Ipv4Addr::new(172, 16, 0, 7),
            image: Digest([1; 32]),
            kernel: Digest([2; 32]),
            keys: make_keys().unwrap(),
            created_unix_ms: 0,
            last_failure: None,
            last_exit: None,
            wanted: Wanted::Stopped,
            restarts: RestartHistory::default(),
        };
        GuestSetup {
            record,
            image: None,
            subnet: "172.16.0.0/24".parse().unwrap(),
            dns: vec![Ipv4Addr::new(1, 1, 1, 1)],
            base_uuid: [5; 16],
            disks,
            vmm: VmmKind::Qemu,
        }
    }

    #[test]
    fn the_agent_reads_what_the_daemon_meant() {
        let setup = setup(vec![("A".into(), "b c".into())]);
        let bytes = config_drive(OpId([3; 16]), &setup, &[]).unwrap();
        let Boot { guest: config, image } = drive::decode(&bytes).unwrap();
        assert_eq!(image, ImageStart::default());
        assert_eq!(config, guest_config(OpId([3; 16]), &setup, &[]));
        let owners = guest_config(OpId([3; 16]), &setup, &["owner".to_owned()]).authorized_keys;
        assert_eq!(owners, [setup.record.keys.client_public.clone(), "owner".to_owned()]);
        assert_eq!(config.hostname, "web");
        assert_eq!(config.vm_id, [9; 16]);
        let net = config.net.unwrap();
        assert_eq!(net.address, Ipv4Addr::new(172, 16, 0, 7));
        assert_eq!((net.gateway, net.prefix_len), (Ipv4Addr::new(172, 16, 0, 1), 24));
        assert_eq!(net.mac, setup.record.mac().0);
        assert_eq!(config.authorized_keys, std::slice::from_ref(&setup.record.keys.client_public));
        assert_eq!(config.host_key, setup.record.keys.host_private);
        let disks = &setup.disks;
        let RootPlan::Overlay { uuid: overlay, .. } = disks.root else { panic!("{disks:?}") };
        let root = RootLayout::Overlay { base: [5; 16], overlay };
        assert_eq!((config.root, config.work), (root, Some(disks.work_uuid)));
    }

    #[test]
    fn the_agent_is_told_what_its_vmm_has() {
        let port = Control::VirtioSerial { name: control::PORT_NAME.to_owned() };
        let vsock = Control::Vsock { port: control::VSOCK_PORT };
        for (vmm, control) in [(VmmKind::Qemu, port), (VmmKind::Firecracker, vsock)] {
            let setup = GuestSetup { vmm, ..setup(vec![]) };
            let bytes = config_drive(OpId([3; 16]), &setup, &[]).unwrap();
            assert_eq!(drive::decode(&bytes).unwrap().guest.control, control);
        }
    }

    #[test]
    fn a_clone_of_the_image_is_found_by_the_images_uuid() {
        let setup = setup_on(DiskBackend::Reflink, vec![]);
        let config = guest_config(OpId([3; 16]), &setup, &[]);
        assert_eq!(config.root, RootLayout::Plain { disk: [5; 16] });
    }

    fn nginx() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["nginx".into(), "-g".into()],
            env: vec![("A".into(), "image".into()), ("B".into(), "image".into())],
            user: "101:101".into(),
            workdir: "/srv".into(),
            stop_signal: "SIGQUIT".into(),
            volumes: vec!["/data".into()],
            ..ImageConfig::default()
        }
    }

    #[test]
    fn what_the_image_says_reaches_the_guest_and_the_owners_words_are_stronger() {
        let mut setup = setup(vec![("A".into(), "own".into())]);
        setup.image = Some(ImageUse { config: nginx(), runs: true });
        let boot = drive::decode(&config_drive(OpId([3; 16]), &setup, &[]).unwrap()).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(boot.guest.env, [pair("B", "image"), pair("A", "own")]);
        let main = Main {
            argv: ["/entry", "nginx", "-g"].map(str::to_owned).to_vec(),
            cwd: Some("/srv".into()),
            user: "101:101".into(),
            stop_signal: Some("SIGQUIT".into()),
        };
        let directories = vec!["/srv".to_owned(), "/data".to_owned()];
        let expected = ImageStart { init: Init::Systemd, directories, main: Some(main) };
        assert_eq!(boot.image, expected);
        // Whoever runs it by hand does not have it run beside.
        setup.image = Some(ImageUse { config: nginx(), runs: false });
        assert_eq!(image_start(&setup), ImageStart { main: None, ..expected });
        let booted = ImageConfig { entrypoint: vec!["/sbin/init".into()], ..nginx() };
        setup.image = Some(ImageUse { config: booted, runs: true });
        let ImageStart { init, main, .. } = image_start(&setup);
        assert_eq!((init, main), (Init::Program("/sbin/init".into()), None));
    }

    #[test]
    fn a_blank_drive_tells_of_nobody() {
        let setup = setup(vec![("A".into(), "b c".into())]);
        let image = ImageUse { config: nginx(), runs: true };
        let setup = GuestSetup { image: Some(image), ..setup };
        let boot = drive::decode(&blank_drive(OpId([3; 16]), &setup).unwrap()).unwrap();
        let config = boot.guest;
        let init = Init::Systemd;
        assert_eq!(boot.image, ImageStart { init, ..ImageStart::default() });
        assert!(config.is_blank());
        let told = guest_config(OpId([3; 16]), &setup, &[]);
        let disks = |config: &GuestConfig| (config.root.clone(), config.work);
        assert_eq!(disks(&config), disks(&told));
        assert_eq!((&config.control, config.ssh_port), (&told.control, told.ssh_port));
        assert_eq!((config.vm_id, config.hostname.as_str(), &config.net), ([0; 16], "", &None));
        assert!(config.authorized_keys.is_empty() && config.env.is_empty());
    }

    #[test]
    fn what_does_not_fit_on_the_drive_is_refused() {
        let setup = setup(vec![("A".into(), "x".repeat(2 << 20))]);
        let refused = config_drive(OpId([3; 16]), &setup, &[]);
        assert!(refused.is_err_and(|error| error.code == Code::Invalid));
    }
}
