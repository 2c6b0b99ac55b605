//! Stores as older versions wrote them, opened by this one.

use heed::types::Bytes;
use heed::{CommitOrAbort, EnvOpenOptions};

use crate::model::{Code, Failure, Outcome, ResourceKind};
use crate::store::reserve_tests::draft;
use crate::store::{Reserved, Store, StoreError};

/// What schema 1 had in its tables, byte for byte. Not made by today's code, and never to be.
const VM: &str = "0000070000000000000000000000000000037765620664656269616e0001fb0001fc00000040fc000000\
    4000000000ac100002010101010101010101010101010101010101010101010101010101010101010102\
    020202020202020202020202020202020202020202020202020202020202020161016201630164fd0068\
    e5cf8b0100000000";
const IMAGE: &str = "000664656269616e01010101010101010101010101010101010101010101010101010101010101010101\
    0101010101010101010101010101fc000000040e74617220726f6f7466732e74617201";
const KERNEL: &str = "000664656269616e02020202020202020202020202020202020202020202020202020202020202021436\
    2e312e302d35302d636c6f75642d616d6436340664656269616e067838365f36340efc0000c0030f6c69\
    6e75782d696d6167652e64656202";
const OP: &str = "0000070000000000000000000000000000000003776562070501080100";

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// Writes a store of the given schema, without the tables that schema 2 brought.
#[allow(unsafe_code, reason = "as in the store itself")]
#[allow(clippy::disallowed_methods, reason = "there is no writer thread here")]
fn write_store(dir: &std::path::Path, schema: u32, vm: &[u8]) {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(1 << 20).max_dbs(16);
    // SAFETY: nobody else knows this directory.
    let env = unsafe { options.open(dir) }.unwrap();
    let made = env
        .create_databases_and_commit(env.write_txn().unwrap(), |opener, txn| {
            let mut make = |name| opener.create_database::<Bytes, Bytes>(txn, Some(name));
            heed::Result::Ok(CommitOrAbort::<_, ()>::Commit([
                make("meta")?,
                make("vms")?,
                make("ops")?,
                make("images")?,
                make("kernels")?,
            ]))
        })
        .unwrap();
    let dbs = made.unwrap_commit();
    let mut txn = env.write_txn().unwrap();
    let id = draft(7, "web").id.0;
    let rows: [(usize, &[u8], Vec<u8>); 5] = [
        (0, b"schema", schema.to_be_bytes().into()),
        (1, &id, vm.to_vec()),
        (2, &id, unhex(OP)),
        (3, b"debian", unhex(IMAGE)),
        (4, b"debian", unhex(KERNEL)),
    ];
    for (db, key, value) in rows {
        dbs[db].put(&mut txn, key, &value).unwrap();
    }
    txn.commit().unwrap();
    env.prepare_for_closing().wait();
}

#[tokio::test]
async fn a_store_of_the_first_schema_opens() {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path(), 1, &unhex(VM));
    let store = Store::open(dir.path()).unwrap();
    let old = store.vm_named(&"web".parse().unwrap()).unwrap().unwrap();
    assert_eq!(old, store.vm(draft(7, "web").id).unwrap().unwrap());
    assert_eq!(store.op(draft(7, "web").intent.id).unwrap().unwrap().outcome, Some(Outcome::Done));
    // The new index rows do their work: the old VM's name and address are taken.
    let again = store.reserve_vm(draft(8, "web")).await;
    assert!(matches!(again, Err(StoreError::NameTaken { holder, .. }) if holder == old.id));
    let Reserved::New(new) = store.reserve_vm(draft(8, "db")).await.unwrap() else {
        panic!("known")
    };
    assert_eq!(old.address.octets(), [172, 16, 0, 2]);
    assert_eq!(new.address.octets(), [172, 16, 0, 3]);
    assert!(store.close_blocking(std::time::Duration::from_secs(10)));
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.vms().unwrap().len(), 2, "migrated once, opened twice");
    // What is older than the ledger has rows too, and what is newer gets them from its operations.
    let held = |vm| store.ledger_of(vm).unwrap().iter().map(|row| row.kind).collect::<Vec<_>>();
    assert_eq!((held(old.id), held(new.id)), (vec![ResourceKind::VmDir], vec![]));
}

#[test]
fn a_newer_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path(), super::CURRENT + 1, &unhex(VM));
    let refused = Store::open(dir.path()).unwrap_err();
    let failure = Failure::from(&refused);
    assert_eq!(failure.code, Code::Refused);
    assert_eq!(failure.message, "the store has schema 9, this banger knows up to 8");
    assert_eq!(failure.hints.len(), 1);
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path(), 1, b"\xff\xff");
    for _ in 0..2 {
        let failed = Store::open(dir.path()).unwrap_err();
        assert!(matches!(failed, StoreError::Migrate { from: 1, .. }), "{failed:?}");
        assert_eq!(Failure::from(&failed).code, Code::Corrupt);
    }
}
