//! The root helper: the only process with privilege, and so the smallest.
//!
//! ```text
//! server ──admit(peer)──decode──> policy ──Plan──> kernel ──> link tap nft   (network)
//!    │                              │ Denied         ├─────> spawn cgroup process children
//!    └──────── audit line <─────────┴────────────────┴─────> loopdev    └> jail ──exec──> porch
//!                                                      fsck ──> e2fsck, as nobody
//!                                                      survey: looks at all of it
//! ```
//!
//! It owns no durable state: what it made is found again by names, aliases, the table's comment,
//! cgroups and command lines. What it may touch comes from its own arguments ([`Config`]); the
//! daemon's bytes are hostile input. Nothing here may import the store, actors or operations.

pub mod audit;
mod beneath;
mod cgroup;
mod children;
pub mod config;
mod dm;
mod error;
mod fsck;
mod jail;
mod kernel;
mod link;
mod loopdev;
mod nft;
pub mod notify;
mod policy;
mod porch;
mod process;
mod server;
mod snapshot;
mod spawn;
mod survey;
mod tap;
mod teardown;

pub use audit::Audit;
pub use config::{Config, ConfigError};
pub use error::Trouble;
pub use kernel::Kernel;
pub use policy::{CheckPlan, Denied, JailFile, JailPlan, Plan, SpawnPlan, admit, policy};
pub use porch::{PORCH, porch};
pub use server::{Executor, Listening, ServeError, serve};
pub use teardown::teardown;
