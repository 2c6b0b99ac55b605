//! Bytes from a daemon that is hostile: what the helper's policy lets pass names only what is its own.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use banger::helper::config::{Jails, Vmm};
use banger::helper::{Config, Plan, policy};
use banger::wire::codec::{decode, encode};
use banger::wire::helper::{HelperReply, HelperRequest};
use libfuzzer_sys::fuzz_target;

const OWNER: u32 = 1000;

static CONFIG: LazyLock<Config> = LazyLock::new(|| Config {
    socket: "/run/banger-root/helper.sock".into(),
    owner_uid: OWNER,
    owner_gid: OWNER,
    groups: vec![],
    state_dir: "/var/lib/banger".into(),
    run_dir: "/run/banger-root".into(),
    bridge: "br-fc".into(),
    tap_prefix: "bgtap".into(),
    table: "banger".into(),
    subnet: "172.16.0.0/24".parse().unwrap(),
    vmms: vec![Vmm { given: "/usr/bin/qemu".into(), canonical: "/opt/q/qemu".into() }],
    audit_log: "/var/log/banger/helper.jsonl".into(),
    cgroup_root: None,
    jails: Some(Jails {
        jailer: Vmm { given: "/usr/bin/jailer".into(), canonical: "/usr/bin/jailer".into() },
        uids: 1_900_000_000..=1_900_004_095,
        vm_run_dir: "/run/banger".into(),
    }),
});

fn is_below(top: &str, path: &Path) -> bool {
    path.starts_with(top)
        && path != Path::new(top)
        && path.components().all(|part| part.as_os_str() != "..")
}

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::<HelperReply>(bytes);
    let Ok(request) = decode::<HelperRequest>(bytes) else { return };
    assert_eq!(decode::<HelperRequest>(&encode(&request).unwrap()).unwrap(), request);
    assert!(policy(&CONFIG, OWNER + 1, &request).is_err(), "a stranger is let in");
    let Ok(plan) = policy(&CONFIG, OWNER, &request) else { return };
    match plan {
        Plan::EnsureTap { tap } | Plan::RemoveTap { tap } => assert!(tap.0.starts_with("bgtap")),
        Plan::Spawn(spawn) => {
            assert_eq!(spawn.program, Path::new("/opt/q/qemu"));
            assert!(is_below("/var/lib/banger", &spawn.log));
            if let Some(jail) = spawn.jail {
                assert!(CONFIG.is_jailed(jail.uid) && is_below("/run/banger", &jail.sockets));
                for file in jail.files {
                    let own = Path::new("/dev/banger").join(spawn.vm.to_string());
                    assert!(is_below("/var/lib/banger", &file.path) || file.path == own);
                }
            }
        }
        Plan::AttachLoop { path, .. } | Plan::DetachLoop { path } => {
            assert!(is_below("/var/lib/banger", &path));
        }
        Plan::EnsureSnapshot(plan) => {
            assert!(is_below("/var/lib/banger", &plan.base));
            assert!(is_below("/var/lib/banger", &plan.changes));
        }
        Plan::Check(plan) => {
            let own = Path::new("/dev/banger").join(plan.vm.to_string());
            assert!(is_below("/var/lib/banger", &plan.path) || plan.path == own);
            assert!(is_below("/var/lib/banger", &plan.log));
        }
        _ => {}
    }
});
