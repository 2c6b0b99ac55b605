//! What is said to Firecracker, word by word.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::client::Method;
use super::super::types::tests::Table;
use super::*;
pub(in crate::host::vmm::firecracker) use crate::host::vmm::sample::plan;
use crate::model::chain;

fn said(calls: &[Call]) -> Vec<(String, Value)> {
    let one = |call: &Call| {
        assert_eq!(call.method, Method::Put);
        (call.path.clone(), serde_json::from_slice(&call.body).unwrap())
    };
    calls.iter().map(one).collect()
}

#[test]
fn the_process_is_told_where_to_listen_and_whose_it_is() {
    assert_eq!(
        arguments(&plan()).unwrap(),
        ["--api-sock", "/s/fc.sock", "--metrics-path", "/s/metrics"]
    );
}

#[test]
fn the_jail_has_what_the_requests_name_and_nothing_else() {
    let mut plan = plan();
    let config = DiskAttachment { path: plan.paths.config(), read_only: true };
    plan.disks.push(config);
    let jail = jail(&plan);
    assert_eq!((&jail.tap, jail.sockets.to_str()), (&plan.tap, Some("/run/b/abababababab/s")));
    let files = |file: &JailFile| (file.path.display().to_string(), file.name.clone(), file.access);
    let config = "/state/vms/abababababababababababababababab/config.img";
    let saving = |name| format!("/state/vms/abababababababababababababababab/saving/{name}");
    let expected = [
        ("/k/vmlinux", "kernel", JailAccess::Shared),
        ("/k/initrd", "initrd", JailAccess::Shared),
        ("/images/base.ext4", "d0", JailAccess::Shared),
        ("/vms/a/overlay.ext4", "d1", JailAccess::Writable),
        (config, "d2", JailAccess::Private),
        (&saving("memory"), "memory-out", JailAccess::Writable),
        (&saving("state"), "state-out", JailAccess::Writable),
    ];
    let expected = expected.map(|(path, name, access)| (path.into(), name.into(), access));
    assert_eq!(jail.files.iter().map(files).collect::<Vec<_>>(), expected);
    let text: String =
        said(&requests(&plan).unwrap()).iter().map(|(_, body)| body.to_string()).collect();
    for file in jail.files.iter().filter(|file| !file.name.ends_with("-out")) {
        assert!(text.contains(&format!("\"/{}\"", file.name)), "{file:?}");
        assert!(!text.contains(file.path.to_str().unwrap()), "a path of the host: {file:?}");
    }
}

#[test]
fn a_guest_that_resumes_finds_its_memory_in_the_jail() {
    let boots = jail(&plan());
    for (memory_is_shared, access) in [(false, JailAccess::Private), (true, JailAccess::Shared)] {
        let resumes = jail(&BootPlan { resume: true, memory_is_shared, ..plan() });
        let (same, more) = resumes.files.split_at(boots.files.len());
        assert_eq!(same, boots.files);
        let saved = plan().paths.saved();
        let file = |path: &PathBuf, name: &str| JailFile {
            path: path.clone(),
            name: name.to_owned(),
            access,
        };
        assert_eq!(more, [file(&saved.memory, "memory-in"), file(&saved.state, "state-in")]);
    }
}

#[test]
fn the_whole_conversation() {
    let calls = said(&requests(&plan()).unwrap());
    let drive = |id, path, read_only| {
        json!({
            "drive_id": id, "path_on_host": path, "is_root_device": false,
            "is_read_only": read_only, "cache_type": "Writeback", "io_engine": "Sync",
        })
    };
    let boot = json!({
        "kernel_image_path": "/kernel", "initrd_path": "/initrd",
        "boot_args": kernel_arguments(false),
    });
    let expected: [(&str, Value); 8] = [
        ("/boot-source", boot),
        ("/machine-config", json!({ "vcpu_count": 2, "mem_size_mib": 512 })),
        ("/drives/d0", drive("d0", "/d0", true)),
        ("/drives/d1", drive("d1", "/d1", false)),
        (
            "/network-interfaces/net0",
            json!({
                "iface_id": "net0", "host_dev_name": "bgt3", "guest_mac": "02:ba:ac:10:00:09",
            }),
        ),
        ("/vsock", json!({ "guest_cid": 3, "uds_path": "/s/vsock.sock" })),
        ("/entropy", json!({})),
        ("/actions", json!({ "action_type": "InstanceStart" })),
    ];
    let expected = expected.map(|(path, body)| (path.to_owned(), body));
    assert_eq!(calls, expected);
}

#[test]
fn the_api_knows_every_word_of_it() {
    let table = Table::read();
    for (path, body) in said(&requests(&plan()).unwrap()) {
        table.check("PUT", &path, &body);
    }
}

#[test]
fn the_kernel_is_told_no_root_and_a_console_only_when_asked() {
    let words = kernel_arguments(true);
    assert!(words.contains("console=ttyS0") && !words.contains("quiet"), "{words}");
    assert!(!words.contains("nr_uarts=0") && !words.contains("root="), "{words}");
    let words = kernel_arguments(false);
    for word in ["root=", "console=", "nomodule"] {
        assert!(!words.contains(word), "{words}");
    }
    assert!(words.contains("panic=1"));
    if cfg!(target_arch = "x86_64") {
        assert!(words.contains("reboot=k") && words.contains("8250.nr_uarts=0"), "{words}");
    }
    assert!(words.len() <= 2048, "more than Firecracker takes");
}

#[test]
fn what_firecracker_cannot_do_is_refused_before_it_runs() {
    let refused = |plan: BootPlan| {
        let error = requests(&plan).unwrap_err();
        assert_eq!(error.code, Code::Invalid);
        chain(&error)
    };
    assert!(refused(BootPlan { vcpu: 33, ..plan() }).contains("at most 32"));
    let run = PathBuf::from(format!("/{}", "r".repeat(80)));
    let paths = VmPaths::new("/state/vms".as_ref(), &run, plan().vm);
    assert!(refused(BootPlan { paths, ..plan() }).contains("at most 107 bytes"));
}

#[test]
fn the_longest_run_directory_that_the_configuration_takes_fits() {
    let run = PathBuf::from(format!("/{}", "r".repeat(75)));
    let plan = plan();
    let paths = VmPaths::new("/state/vms".as_ref(), &run, plan.vm);
    requests(&BootPlan { paths, ..plan }).unwrap();
}
