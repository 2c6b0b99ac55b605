//! The ledger, and what is wrong with it and with VMs, as they cross the socket.

use super::reply::{DiagnosisInfo, GarbageInfo, LedgerInfo};
use crate::model::{Diagnosis, LedgerRow, Mismatch, ResourceKind, TapName, VmId, VmView};

impl From<&LedgerRow> for LedgerInfo {
    fn from(row: &LedgerRow) -> Self {
        Self {
            kind: row.kind.to_string(),
            name: row.name.clone(),
            vm_id: Some(row.vm.to_string()),
            op_id: row.op.map(|op| op.to_string()),
            since_unix_ms: Some(row.unix_ms),
        }
    }
}

impl From<(&TapName, Option<VmId>)> for LedgerInfo {
    fn from((tap, vm): (&TapName, Option<VmId>)) -> Self {
        Self {
            kind: ResourceKind::Tap.to_string(),
            name: tap.to_string(),
            vm_id: vm.map(|vm| vm.to_string()),
            op_id: None,
            since_unix_ms: None,
        }
    }
}

impl From<&Mismatch> for GarbageInfo {
    fn from(found: &Mismatch) -> Self {
        let thing = &found.thing;
        Self {
            kind: thing.kind.to_string(),
            name: thing.name.clone(),
            vm_id: thing.vm.map(|vm| vm.to_string()),
            vm: found.vm_name.clone(),
            amiss: found.amiss.as_str().to_owned(),
            why: found.why.clone(),
            cure: found.cure.as_str().to_owned(),
            would: found.cure.to_string(),
            acts: found.cure.acts(),
        }
    }
}

impl From<(&VmView, Diagnosis, Vec<LedgerInfo>)> for DiagnosisInfo {
    fn from((view, diagnosis, rows): (&VmView, Diagnosis, Vec<LedgerInfo>)) -> Self {
        let Diagnosis { found, action, steps, exit } = diagnosis;
        Self {
            vm_id: view.record.id.to_string(),
            name: view.record.spec.name.to_string(),
            state: view.record.state.to_string(),
            found,
            action: action.as_str().to_owned(),
            steps,
            exit,
            rows,
        }
    }
}
