//! The program `banger` as its users meet it, against a canned daemon.

mod arguments;
mod completion;
mod errors;
mod events;
mod guests;
mod images;
mod kernels;
mod ledger;
mod operations;
mod ops;
mod output;
mod refusals;
mod samples;
mod simulated;
mod system;
mod vsock;
mod workspaces;
