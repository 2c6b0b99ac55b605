//! Samples of every reply.

use banger::wire::reply::{
    Answer, BlobInfo, BusyInfo, CheckInfo, ConditionInfo, DefaultKernelInfo, DevicesInfo,
    DiagnosisInfo, DiskInfo, EndpointInfo, EventInfo, EventKindInfo, ExitInfo, FailureInfo,
    GarbageInfo, HealthInfo, HealthRunInfo, ImageConfigInfo, ImageInfo, ImageNameInfo,
    ImageUsageInfo, KernelFeatureInfo, KernelInfo, KernelUsageInfo, LedgerInfo, OpInfo,
    ProgramInfo, Reply, StatsInfo, StatusInfo, StepInfo, UpkeepInfo, VmInfo, WorkspaceInfo,
};

use super::{check, every};

every!(reply: Reply { Accepted Event Bytes Part Done Failed });
every!(answer: Answer {
    Nothing Status Checks Vms Endpoint Images Kernels Ops Ended Lane Stats Disk Upkeep
    Ledger Garbage Diagnosis Workspaces Program ImageConfig ImageUsage KernelFeatures
    Blobs DefaultKernel KernelUsage
});
every!(event_kind: EventKindInfo {
    OpStarted StepStarted StepDone StepFailed StepUndone OpEnded VmChanged VmExited ActorRebuilt
    ActorQuarantined Progress Missed Note Lost Forgotten Transfer
});

fn s(text: &str) -> String {
    text.to_owned()
}

fn failure() -> FailureInfo {
    FailureInfo {
        code: s("guest-unreachable"),
        message: s("start vm web: the guest never came up"),
        hints: vec![s("banger vm logs web")],
        retryable: true,
        op_id: Some(s("op-01")),
        detail: vec![s("Kernel panic")],
    }
}

fn vm() -> VmInfo {
    VmInfo {
        id: s("0a0a"),
        name: s("web"),
        state: s("running"),
        generation: 3,
        image: s("debian-bookworm"),
        image_digest: s("d1"),
        kernel: s("debian-6.1"),
        kernel_digest: s("d2"),
        address: s("172.16.0.5"),
        mac: s("02:ba:00:00:00:05"),
        vcpu: 2,
        memory_mib: 1024,
        disk_bytes: 8 << 30,
        work_disk_bytes: 8 << 30,
        nat: true,
        env_names: vec![s("A")],
        created_unix_ms: 1_700_000_000_123,
        busy: Some(BusyInfo { op_id: s("op-02"), kind: s("vm-stop") }),
        vmm: Some(s("qemu (tcg)")),
        pid: Some(4711),
        tap: Some(s("bgr5")),
        guest_boot_id: Some(s("b")),
        host_key: s("ssh-ed25519 AAAA"),
        last_failure: Some(failure()),
        last_exit: Some(ExitInfo { unix_ms: 1_700_000_000_456, how: s("exit status 1") }),
    }
}

fn op() -> OpInfo {
    let step = StepInfo {
        step: s("lease-tap"),
        status: s("undone"),
        started_unix_ms: Some(1_700_000_000_001),
        ended_unix_ms: None,
        error: Some(s("busy")),
    };
    OpInfo {
        id: s("op-01"),
        kind: s("vm-start"),
        subject: s("web"),
        vm_id: Some(s("0a0a")),
        started_unix_ms: 1_700_000_000_000,
        ended_unix_ms: Some(1_700_000_001_000),
        outcome: s("rolled-back"),
        step: Some(s("lease-tap")),
        cause: Some(s("busy")),
        undo: None,
        steps: vec![step],
    }
}

fn event(kind: EventKindInfo) -> EventInfo {
    let unix_ms = 1_700_000_000_000;
    EventInfo { seq: 9, unix_ms, op_id: Some(s("op-01")), vm_id: Some(s("0a0a")), kind }
}

fn stats() -> StatsInfo {
    let devices = DevicesInfo {
        net_in_bytes: 1,
        net_out_bytes: 2,
        net_in_packets: 3,
        net_out_packets: 4,
        disk_read_bytes: 5,
        disk_written_bytes: 6,
        disk_reads: 7,
        disk_writes: 8,
        disk_flushes: 9,
        vsock_in_bytes: 10,
        vsock_out_bytes: 11,
    };
    StatsInfo {
        id: "ab".repeat(16),
        name: s("web"),
        state: s("running"),
        collected_unix_ms: 1_700_000_000_000,
        vcpu: 2,
        memory_mib: 512,
        pid: Some(4242),
        cpu_us: Some(1_500_000),
        resident_bytes: Some(64 << 20),
        cgroup_bytes: None,
        root_disk_bytes: 3 << 20,
        work_disk_bytes: 1 << 20,
        devices: Some(devices),
    }
}

fn upkeep() -> UpkeepInfo {
    let last = HealthRunInfo { unix_ms: 7, how: s("exit status 1"), output: s("refused") };
    let health = HealthInfo {
        command: s("curl -f localhost"),
        interval_ms: 5000,
        timeout_ms: 1000,
        retries: 2,
        start_period_ms: 0,
        status: s("unhealthy"),
        failures: 2,
        last: Some(last),
    };
    let condition = ConditionInfo {
        kind: s("unhealthy"),
        reason: s("exit status 1"),
        since_unix_ms: 8,
        exit: s("its health check succeeds"),
    };
    UpkeepInfo {
        id: s("0a0a"),
        restart_policy: s("on-failure:3"),
        wanted: s("running"),
        restarts: 1,
        next_start_unix_ms: Some(1_700_000_000_000),
        health: Some(health),
        conditions: vec![condition],
    }
}

#[test]
fn replies() {
    let samples = [
        Reply::Accepted { op_id: [7; 16] },
        Reply::Event(event(EventKindInfo::StepStarted { step: s("lease-tap") })),
        Reply::Bytes(b"console\n".to_vec()),
        Reply::Part(Answer::Ops(vec![])),
        Reply::Done(Answer::Nothing),
        Reply::Failed(failure()),
    ];
    check("reply", reply::ALL, reply::name, &samples);
}

#[test]
fn answers() {
    let status = StatusInfo {
        version: s("0.1.0"),
        pid: 1,
        uid: 1000,
        started_unix_ms: 1_700_000_000_000,
        state_dir: s("/var/lib/banger"),
        socket: s("/run/banger/bangerd.sock"),
        simulated: false,
        bridge: s("br-fc"),
        subnet: s("172.16.0.1/24"),
        dns_listen: Some(s("127.0.0.1:42069")),
        taps_ready: 4,
        taps_leased: 1,
        vms: 2,
        vms_running: 1,
        helper: s("/run/banger-root/helper.sock"),
    };
    let check_info = CheckInfo {
        name: s("kvm"),
        verdict: s("warn"),
        detail: s("the CPU shows neither svm nor vmx"),
        hint: Some(s("guests run under TCG")),
    };
    let endpoint = EndpointInfo {
        vm_id: s("0a0a"),
        name: s("web"),
        address: s("172.16.0.5"),
        port: 22,
        host_key: s("ssh-ed25519 AAAA"),
        client_private: s("-----BEGIN"),
        env: vec![(s("A"), s("b"))],
    };
    let image = ImageInfo {
        name: s("debian-bookworm"),
        digest: s("d1"),
        size_bytes: 1 << 30,
        source: s("mmdebstrap bookworm"),
        created_unix_ms: 1_700_000_000_000,
        used_by: vec![s("web")],
    };
    let kernel = KernelInfo {
        name: s("debian-6.1"),
        digest: s("d2"),
        version: s("6.1.0-50-cloud-amd64"),
        distro: s("debian"),
        arch: s("x86_64"),
        modules: 13,
        size_bytes: 53 << 20,
        source: s("linux.deb"),
        created_unix_ms: 1_700_000_000_000,
        used_by: vec![],
    };
    let samples = [
        Answer::Nothing,
        Answer::Status(Box::new(status)),
        Answer::Checks(vec![check_info]),
        Answer::Vms(vec![vm()]),
        Answer::Endpoint(Box::new(endpoint)),
        Answer::Images(vec![image]),
        Answer::Kernels(vec![kernel]),
        Answer::Ops(vec![op()]),
        Answer::Ended { op: Box::new(op()), vm: Some(Box::new(vm())) },
        Answer::Lane { socket: s("/run/b/lane.sock") },
        Answer::Stats(vec![stats()]),
        Answer::Disk(Box::new(DiskInfo {
            backend: s("dm-snapshot"),
            why: s("asked for"),
            used_bytes: Some(90),
            limit_bytes: Some(100),
            paused: Some(s("nearly full")),
        })),
        Answer::Upkeep(vec![upkeep()]),
        Answer::Ledger(vec![ledger()]),
        Answer::Garbage(vec![garbage()]),
        Answer::Diagnosis(Box::new(DiagnosisInfo {
            vm_id: s("0707"),
            name: s("web"),
            state: s("error"),
            found: vec![s("stuck")],
            action: s("clean-up"),
            steps: vec![s("end what runs of it")],
            exit: Some(s("start it")),
            rows: vec![ledger()],
        })),
        Answer::Workspaces(vec![WorkspaceInfo {
            id: s("0a0a"),
            guest_path: s("/root/repo"),
            host_path: s("/home/me/repo"),
            head: s("1a2b"),
            branch: Some(s("main")),
            mode: s("shallow"),
            include_untracked: true,
            exclude: vec![s("*.o")],
            include_ignored: vec![s("dist/**")],
            files: 3,
            bytes: 1_000_000,
            manifest: s("0303"),
            prepared_unix_ms: 1_700_000_000_000,
        }]),
        Answer::Program(Some(Box::new(ProgramInfo {
            entrypoint: vec![s("/entry")],
            cmd: vec![s("serve")],
            user: s("101"),
            workdir: s("/srv"),
            stop_signal: s("SIGQUIT"),
            runs: true,
        }))),
        Answer::ImageConfig(Some(Box::new(ImageConfigInfo {
            entrypoint: vec![s("/entry")],
            cmd: vec![s("serve")],
            env: vec![s("A=b c")],
            user: s("101"),
            working_dir: s("/srv"),
            stop_signal: s("SIGQUIT"),
            exposed_ports: vec![s("80/tcp")],
            volumes: vec![s("/data")],
            labels: [(s("l"), s("v"))].into(),
        }))),
        Answer::ImageUsage(vec![ImageUsageInfo {
            digest: s("0101"),
            names: vec![
                ImageNameInfo { name: s("web"), kept_because: Some(s("used by a")) },
                ImageNameInfo { name: s("old"), kept_because: None },
            ],
            used_by: vec![s("a")],
            file_bytes: 400 << 20,
            seed_bytes: 1 << 20,
            snapshots: 1,
            snapshot_bytes: 256 << 20,
        }]),
        Answer::KernelFeatures(vec![KernelFeatureInfo {
            option: s("CONFIG_OVERLAY_FS"),
            support: s("module"),
            purpose: s("overlay roots"),
            needed_by: vec![s("VMs with an overlay root")],
        }]),
        Answer::Blobs(vec![BlobInfo {
            digest: s("0101"),
            bytes: 4 << 20,
            whole: true,
            used_unix_ms: 1_700_000_000_000,
        }]),
        Answer::DefaultKernel(Some(Box::new(DefaultKernelInfo {
            name: s("debian"),
            decided_by: s("set"),
            exists: true,
        }))),
        Answer::KernelUsage(vec![KernelUsageInfo {
            digest: s("0202"),
            names: vec![ImageNameInfo { name: s("debian"), kept_because: Some(s("used by a")) }],
            used_by: vec![s("a")],
            file_bytes: 53 << 20,
            initrd_bytes: 5 << 20,
        }]),
    ];
    check("answer", answer::ALL, answer::name, &samples);
}

fn ledger() -> LedgerInfo {
    LedgerInfo {
        kind: s("nat-rule"),
        name: s("172.16.0.2"),
        vm_id: Some(s("0707")),
        op_id: Some(s("op-01")),
        since_unix_ms: Some(1_700_000_000_000),
    }
}

fn garbage() -> GarbageInfo {
    GarbageInfo {
        kind: s("tap"),
        name: s("bgtap9"),
        vm_id: None,
        vm: Some(s("web")),
        amiss: s("orphan"),
        why: s("the pool of taps has no such row"),
        cure: s("remove"),
        would: s("remove it"),
        acts: true,
    }
}

#[test]
fn events() {
    use EventKindInfo as E;
    let samples = [
        E::OpStarted { op: s("vm-start"), subject: s("web") },
        E::StepStarted { step: s("lease-tap") },
        E::StepDone { step: s("lease-tap"), elapsed_us: 1234 },
        E::StepFailed { step: s("lease-tap"), cause: s("busy") },
        E::StepUndone { step: s("lease-tap") },
        E::OpEnded { outcome: s("done") },
        E::VmChanged { name: s("web"), state: s("running") },
        E::VmExited { name: s("web"), how: s("killed by SIGKILL"), expected: false },
        E::ActorRebuilt { actor: s("vm web"), incarnation: 2 },
        E::ActorQuarantined { actor: s("vm web") },
        E::Progress { text: s("unpacked 1200 files") },
        E::Missed { count: 3 },
        E::Note { text: s("ended by force: the guest did not end in time") },
        E::Lost { count: 3 },
        E::Forgotten { first: 812 },
        E::Transfer {
            blob: s("sha256:0a1b2c3d4e5f"),
            number: 2,
            of: 5,
            bytes: 1_000_000,
            size_bytes: 3_000_000,
            bytes_per_second: 500_000,
            left_ms: Some(4_000),
        },
    ];
    check("event", event_kind::ALL, event_kind::name, &samples);
}
