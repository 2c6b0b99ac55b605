//! Makes ids. The one place of the daemon that draws randomness for names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{OpId, VmId};
use crate::ports::Clock;

/// For operations that are born in the daemon, and for VMs.
#[derive(Clone, Debug)]
pub struct Mint {
    clock: Arc<dyn Clock>,
}

impl Mint {
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }

    #[must_use]
    pub fn op(&self) -> OpId {
        OpId::from_parts(self.clock.unix_ms(), random())
    }

    #[must_use]
    pub fn vm(&self) -> VmId {
        VmId(random())
    }
}

/// Ids must differ, not be secret: where the kernel has no randomness yet, time and a counter do.
fn random<const N: usize>() -> [u8; N] {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0; N];
    if getrandom::fill(&mut bytes).is_err() {
        let count = COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        let pid = std::process::id().to_le_bytes();
        for (byte, value) in bytes.iter_mut().zip(count.into_iter().take(4).chain(pid)) {
            *byte = value;
        }
    }
    bytes
}
