//! The only importer of actix. Outside this room an actor is a [`Handle`].
//!
//! ```text
//! gateway ──> session ──> SupervisorActor ──> VmActor (one per VM) ──> operation on a tracked task
//!                 ├─────> ImagesActor, JanitorActor ─────────────────> operation on a tracked task
//!                 └─────> events in the store  operations ──> TapPoolActor, DnsActor
//! ```

mod answers;
mod clock_watch;
mod dns;
mod downloads;
mod envelope;
mod events;
mod exports;
mod follow;
mod gateway;
mod handle;
mod house;
mod image_names;
mod images;
mod inventory;
mod janitor;
mod kernel_pulls;
mod kernels;
mod mint;
mod net_watch;
mod patience;
mod pulls;
mod remedy;
mod service;
mod session;
mod shelves;
mod solo;
mod starts;
mod stats;
mod supervisor;
mod tap_pool;
mod vm;
mod watch;
mod workspaces;

pub use clock_watch::{ClockWatchActor, ClockWatchDeps};
pub use dns::{DnsActor, DnsHandle};
pub use envelope::{CallError, Command, Lane, OpCtx, Req};
pub use events::EventSink;
pub use gateway::serve;
pub use handle::Handle;
pub use house::{Checks, House};
pub use images::{ImagesActor, ImagesDeps, sweep};
pub use inventory::{Compared, Inventory};
pub use janitor::{JanitorActor, JanitorDeps};
pub use mint::Mint;
pub use net_watch::{NetHealth, NetWatchActor, NetWatchDeps, drops_said};
pub use supervisor::{Adopt, FindVm, Found, HostLimits, ListVms, SupervisorActor};
pub use tap_pool::{TapPoolActor, TapPoolConfig, TapPoolHandle};
pub use vm::{Asker, Ended, OpRequest, RunOp, Ticket, VmActor, VmDeps, recover};
pub use watch::{RestartBudget, Verdict};
