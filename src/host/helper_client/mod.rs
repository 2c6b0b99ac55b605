//! The daemon's side of the root helper: a client of its socket, and the ports made of it.

mod client;
mod net;
mod process;
mod survey;

pub use client::HelperClient;
pub use net::HelperNet;
pub use process::HelperProcess;
pub(in crate::host) use survey::survey as survey_host;
