//! Pure types and rules: no runtime, no I/O, no codec, nothing of ours imported.
//!
//! Requested ([`VmSpec`]), durable ([`VmRecord`]), observed ([`VmHandles`]) and published
//! ([`VmView`]) are different types on purpose: what somebody asked for is never mistaken for what is.

mod admission;
mod clock_marks;
mod condition;
mod debian_kernel;
mod diagnosis;
mod disk;
mod event;
mod failure;
mod file_sync;
mod health;
mod ids;
mod image;
mod image_config;
mod image_ref;
mod kernel_features;
mod kernel_needs;
mod ledger;
mod lifecycle;
mod name;
mod net_seen;
mod network;
mod op;
mod proc_stat;
mod prune;
mod registry;
mod restart;
mod saved;
mod size;
mod spec;
mod usage;
mod vm;
mod workspace;

pub use admission::{HostBudget, Refusal, admit};
pub use clock_marks::{ClockJump, ClockMarks};
pub use condition::{Condition, ConditionKind, Finding};
pub use debian_kernel::{
    DebianKernel, InvalidPackage, KernelOffer, is_package, is_pulled, is_version, name_of_source,
};
pub use diagnosis::{Diagnosis, RecoverAction, Situation, diagnose};
pub use disk::{DiskBackend, DiskChoice, RootDisk, settle_root};
pub use event::{Event, EventKind};
pub use failure::{Code, Failure, chain};
pub use file_sync::{FileSync, FileSyncText};
pub use health::{Health, HealthChange, HealthCheck, HealthError, HealthRun, HealthStatus};
pub use ids::{Digest, Incarnation, OpId, ParseIdError, VmId};
pub use image::{ImageLimits, ImageRecord, ImageSaid, KernelRecord};
pub use image_config::{ImageConfig, ImageInit, ImageUse, MAX_CONFIG_BYTES};
pub use image_ref::{ImageRef, InvalidImageRef};
pub use kernel_features::{
    KernelConfig, KernelFeature, KernelFeatures, KernelSupport, ModuleSeen, Setting,
    kernel_features,
};
pub use kernel_needs::{
    HOST_IS_X86, Lack, Machine, lack_text, lacking, lacking_for_every, lacking_for_some, needed_by,
};
pub use ledger::{
    Amiss, Books, Cure, HostSeen, LedgerChange, LedgerRow, Mismatch, ResourceKind, Thing, VmBrief,
    compare, may_collect, may_hold,
};
pub use lifecycle::{Refused, Verb, VmEvent, VmState, admits, step};
pub use name::{InvalidName, Name};
pub use net_seen::{NetAmiss, NetOf, NetSeen, TapSeen};
pub use network::{Mac, Subnet, SubnetError, TapName};
pub use op::{
    CUT_SHORT, Entry, IllegalEvent, OpKind, OpRecord, Outcome, Progress, StepEvent, StepStatus,
    StepTiming,
};
pub use proc_stat::ProcStat;
pub use prune::{Prunable, PruneVerdict, prune};
pub use registry::{RegistrySettings, Transfer};
pub(crate) use restart::LONGEST_PAUSE_MS;
pub use restart::{
    Decision, Exit, GiveUp, ParsePolicyError, RestartHistory, RestartPolicy, Wanted, decide,
};
pub use saved::{ParseSavedByError, SavedBy};
pub use size::{ParseSizeError, Size};
pub use spec::{SpecDefaults, SpecError, VmSpec, VmmChoice, VmmKind};
pub use usage::{DeviceCounters, DiskUsage, ProcessUsage};
pub use vm::{ExitReport, ProcessIdentity, VmHandles, VmKeys, VmRecord, VmView};
pub use workspace::{
    Drift, FileStat, HeadMoved, Manifest, SeenFile, Selection, SentFile, Staleness, Workspace,
    WorkspaceMode, show_path,
};
