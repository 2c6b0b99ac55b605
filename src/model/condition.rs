//! What is wrong with a VM that runs.

use std::fmt;

/// Seen, not asked for: it goes when its cause goes, and is never durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: ConditionKind,
    pub reason: String,
    pub since_unix_ms: u64,
    /// What ends it, or what its owner can do to end it.
    pub exit: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionKind {
    /// Its health check has failed too often.
    Unhealthy,
    /// It is cut off: its tap is gone, or the bridge is and cannot be made.
    Network,
    /// Its VMM runs and its guest says nothing.
    Unresponsive,
    /// Somebody stopped its VMM's process.
    VmmStopped,
    /// The root helper does not answer: it runs on, and nothing can be done to it.
    NoHelper,
    /// Its guest was paused before its disk is full.
    Paused,
    /// Its VMM halted its guest: the host could not write its disk.
    HostFull,
}

impl ConditionKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::Network => "network",
            Self::Unresponsive => "unresponsive",
            Self::VmmStopped => "vmm-stopped",
            Self::NoHelper => "no-helper",
            Self::Paused => "paused",
            Self::HostFull => "host-full",
        }
    }

    /// Whether its guest stands still, and so answers nobody.
    #[must_use]
    pub fn stands_still(self) -> bool {
        matches!(self, Self::Paused | Self::HostFull)
    }
}

impl fmt::Display for ConditionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What somebody found who looked: a [`Condition`] before it is known since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub reason: String,
    pub exit: String,
}
