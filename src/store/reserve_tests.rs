//! Reservations: alone, again, at once, and what a refused one leaves behind.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::{Reserved, Store, StoreError, VmDraft};
use crate::model::{
    Code, Digest, Failure, ImageRecord, KernelFeatures, KernelRecord, Name, OpId, OpKind, OpRecord,
    Outcome, RestartPolicy, RootDisk, Size, VmHandles, VmId, VmKeys, VmRecord, VmSpec, VmState,
    VmmChoice, Wanted,
};

pub(super) fn image(name: &str, content: u8) -> ImageRecord {
    ImageRecord {
        name: Name::artefact(name).unwrap(),
        digest: Digest([content; 32]),
        uuid: [content; 16],
        size: Size::from_mib(64),
        source: "tar rootfs.tar".to_owned(),
        created_unix_ms: 1,
    }
}

pub(super) fn kernel(name: &str, content: u8) -> KernelRecord {
    KernelRecord {
        name: Name::artefact(name).unwrap(),
        digest: Digest([content; 32]),
        version: "6.1.0-50-cloud-amd64".to_owned(),
        distro: "debian".to_owned(),
        arch: "x86_64".to_owned(),
        modules: 14,
        size: Size::from_mib(60),
        source: "linux-image.deb".to_owned(),
        created_unix_ms: u64::from(content),
    }
}

pub(super) fn draft(n: u16, name: &str) -> VmDraft {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    VmDraft {
        id: VmId(id),
        spec: VmSpec {
            name: name.parse().unwrap(),
            image: "debian".to_owned(),
            kernel: String::new(),
            vcpu: 1,
            memory_mib: 256,
            disk: Size::from_mib(1024),
            work_disk: Size::from_mib(1024),
            nat: false,
            env: vec![],
            vmm: VmmChoice::Auto,
            root: RootDisk::default(),
            console: false,
            warm: false,
            restart: RestartPolicy::No,
            health: None,
        },
        keys: VmKeys {
            host_private: "a".to_owned(),
            host_public: "b".to_owned(),
            client_private: "c".to_owned(),
            client_public: "d".to_owned(),
        },
        created_unix_ms: 5,
        subnet: "172.16.0.0/24".parse().unwrap(),
        wanted: Wanted::Stopped,
        runs: false,
        intent: OpRecord {
            id: OpId(id),
            kind: OpKind::CreateVm,
            vm: Some(VmId(id)),
            subject: name.to_owned(),
            request_hash: u64::from(n),
            started_unix_ms: 5,
            ended_unix_ms: None,
            outcome: None,
        },
    }
}

pub(super) async fn stocked() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.put_image(image("debian", 1), None).await.unwrap();
    store.put_kernel(kernel("old", 2), KernelFeatures::default()).await.unwrap();
    store.put_kernel(kernel("new", 3), KernelFeatures::default()).await.unwrap();
    (dir, store)
}

async fn new_vm(store: &Store, draft: VmDraft) -> VmRecord {
    match store.reserve_vm(draft).await.unwrap() {
        Reserved::New(record) => *record,
        Reserved::Known(op) => panic!("known: {op:?}"),
    }
}

#[tokio::test]
async fn a_hundred_at_once_share_nothing() {
    let (_dir, store) = stocked().await;
    let drafts = (0..100).map(|n| store.reserve_vm(draft(n, &format!("vm-{n}"))));
    let reserved = join_all(drafts).await;
    assert!(reserved.iter().all(|vm| matches!(vm, Ok(Reserved::New(_)))));
    let vms = store.vms().unwrap();
    let addresses: BTreeSet<_> = vms.iter().map(|vm| vm.address).collect();
    assert_eq!(addresses.len(), 100);
    let lowest: BTreeSet<_> = draft(0, "a").subnet.guests().take(100).collect();
    assert_eq!(addresses, lowest, "without gaps");
    assert_eq!(store.open_ops().unwrap().len(), 100);
}

#[tokio::test]
async fn one_name_goes_to_one() {
    let (_dir, store) = stocked().await;
    let reserved = join_all((0..50).map(|n| store.reserve_vm(draft(n, "web")))).await;
    assert_eq!(reserved.iter().filter(|vm| vm.is_ok()).count(), 1);
    let holder = store.vm_named(&"web".parse().unwrap()).unwrap().unwrap().id;
    for refused in reserved.into_iter().filter_map(Result::err) {
        assert!(matches!(&refused, StoreError::NameTaken { holder: h, .. } if *h == holder));
        assert_eq!(Failure::from(&refused).code, Code::Exists);
    }
    assert_eq!(store.open_ops().unwrap().len(), 1, "a refused reservation leaves no intent");
}

#[tokio::test]
async fn the_same_operation_reserves_once() {
    let (_dir, store) = stocked().await;
    let again = join_all((0..10).map(|_| store.reserve_vm(draft(1, "web")))).await;
    let new = again.iter().filter(|vm| matches!(vm, Ok(Reserved::New(_)))).count();
    let known = again.iter().filter(|vm| matches!(vm, Ok(Reserved::Known(_)))).count();
    assert_eq!((new, known), (1, 9));
    let mut other = draft(1, "other");
    other.intent.request_hash = 99;
    assert!(matches!(store.reserve_vm(other).await, Err(StoreError::Conflict(_))));
}

#[tokio::test]
async fn contents_are_pinned_by_digest() {
    let (_dir, store) = stocked().await;
    let vm = new_vm(&store, draft(1, "web")).await;
    assert_eq!((vm.image, vm.kernel), (Digest([1; 32]), Digest([3; 32])));
    assert_eq!(vm.spec.kernel, "new", "the newest, by name");
    let mut named = draft(2, "db");
    named.spec.kernel = "old".to_owned();
    assert_eq!(new_vm(&store, named).await.kernel, Digest([2; 32]));
    let mut without = draft(3, "x");
    without.spec.image = "nixos".to_owned();
    let missing = store.reserve_vm(without).await.unwrap_err();
    assert_eq!(Failure::from(&missing).message, "no image named \"nixos\"");
    let mut without = draft(3, "x");
    without.spec.kernel = "bsd".to_owned();
    let missing = store.reserve_vm(without).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { what: "kernel", .. }));
}

#[tokio::test]
async fn addresses_run_out_and_come_back() {
    let (_dir, store) = stocked().await;
    let small = |n: u16| VmDraft {
        subnet: "172.16.0.0/29".parse().unwrap(),
        ..draft(n, &format!("vm-{n}"))
    };
    let mut vms = vec![];
    for n in 0..5 {
        vms.push(new_vm(&store, small(n)).await);
    }
    let full = store.reserve_vm(small(5)).await.unwrap_err();
    assert_eq!(Failure::from(&full).code, Code::AddressPoolFull);
    let gone = &vms[2];
    store.delete_vm(draft(2, "x").intent.id, Outcome::Done, 9, gone.id).await.unwrap();
    assert_eq!(new_vm(&store, small(5)).await.address, gone.address);
}

#[tokio::test]
async fn deleting_frees_everything() {
    let (_dir, store) = stocked().await;
    let vm = new_vm(&store, draft(1, "web")).await;
    let handles = VmHandles { vmm: Some("qemu".to_owned()), ..VmHandles::default() };
    store.put_handles(vm.id, handles.clone()).await.unwrap();
    assert_eq!(store.handles(vm.id).unwrap(), Some(handles));
    let op = draft(1, "web").intent.id;
    for _ in 0..2 {
        store.delete_vm(op, Outcome::Done, 9, vm.id).await.unwrap();
    }
    assert_eq!((store.vm(vm.id).unwrap(), store.handles(vm.id).unwrap()), (None, None));
    assert_eq!(store.vm_named(&vm.spec.name).unwrap(), None);
    assert_eq!(store.op(op).unwrap().unwrap().outcome, Some(Outcome::Done));
    assert_eq!(new_vm(&store, draft(2, "web")).await.address, vm.address);
}

#[tokio::test]
async fn identity_is_fixed() {
    let (_dir, store) = stocked().await;
    let vm = new_vm(&store, draft(1, "web")).await;
    let renamed = store.update_vm(vm.id, 9, |vm| vm.spec.name = "db".parse().unwrap()).await;
    assert!(matches!(renamed, Err(StoreError::Identity(_))));
    let moved = store.update_vm(vm.id, 9, |vm| vm.address = [10, 0, 0, 1].into()).await;
    assert!(matches!(moved, Err(StoreError::Identity(_))));
    let changed = store.update_vm(vm.id, 9, |vm| vm.state = VmState::Running).await.unwrap();
    assert_eq!(store.vm(vm.id).unwrap(), Some(changed));
    let nobody = store.update_vm(VmId([9; 16]), 9, |_| {}).await;
    assert!(matches!(nobody, Err(StoreError::NotFound { what: "VM", .. })));
}

#[tokio::test]
async fn an_outcome_comes_with_its_state() {
    let (_dir, store) = stocked().await;
    let vm = new_vm(&store, draft(1, "web")).await;
    let op = draft(1, "web").intent.id;
    let running = VmRecord { state: VmState::Running, ..vm.clone() };
    let handles = VmHandles { vmm: Some("qemu".to_owned()), ..VmHandles::default() };
    store.settle_vm(op, Outcome::Done, 9, running, handles.clone()).await.unwrap();
    assert_eq!(store.vm(vm.id).unwrap().unwrap().state, VmState::Running);
    assert_eq!(store.handles(vm.id).unwrap(), Some(handles));
    assert_eq!(store.open_ops().unwrap(), []);
    // A record that may not be written takes the outcome with it: one job.
    let stop = OpRecord { id: OpId([8; 16]), ..draft(1, "web").intent };
    store.begin_vm(stop.clone(), vm.clone()).await.unwrap();
    let moved = VmRecord { address: [10, 0, 0, 1].into(), ..vm };
    let refused = store.settle_vm(stop.id, Outcome::Done, 9, moved, VmHandles::default()).await;
    assert!(matches!(refused, Err(StoreError::Identity(_))));
    assert_eq!(store.op(stop.id).unwrap().unwrap().outcome, None);
}

#[tokio::test]
async fn what_a_vm_boots_from_stays() {
    let (_dir, store) = stocked().await;
    store.put_image(image("same", 1), None).await.unwrap();
    let vm = new_vm(&store, draft(1, "web")).await;
    let name = |text| Name::artefact(text).unwrap();
    store.delete_image(name("debian")).await.unwrap(); // the other name keeps what the VM boots from
    let refused = store.delete_image(name("same")).await.unwrap_err();
    assert!(matches!(&refused, StoreError::InUse { by, .. } if by == &["web"]));
    assert!(store.delete_kernel(name("new")).await.is_err());
    store.delete_kernel(name("old")).await.unwrap();
    store.delete_vm(draft(1, "web").intent.id, Outcome::Done, 9, vm.id).await.unwrap();
    store.delete_image(name("same")).await.unwrap();
    assert!(matches!(
        store.delete_image(name("debian")).await,
        Err(StoreError::NotFound { what: "image", .. })
    ));
}

#[tokio::test]
async fn a_name_means_one_content() {
    let (_dir, store) = stocked().await;
    let later = ImageRecord { created_unix_ms: 9, ..image("debian", 1) };
    assert_eq!(store.put_image(later, None).await.unwrap(), image("debian", 1), "known already");
    let other = store.put_image(image("debian", 7), None).await.unwrap_err();
    assert_eq!(Failure::from(&other).code, Code::Exists);
    assert_eq!(store.image("debian").unwrap(), Some(image("debian", 1)));
    assert_eq!(store.kernels().unwrap().len(), 2);
}
