//! Images from registries, into the cache of blobs.
//!
//! ```text
//! reference -> client (TLS, credentials, one request) -> fetch (one blob, however the network is)
//!                └ index -> manifest -> configuration and layers, several at a time -> cache
//! ```
//!
//! Documents and blobs are believed by their digests alone. Nothing here knows how layers become a
//! file system; nothing outside knows how registries are spoken to.

mod cache;
mod challenge;
mod client;
mod fetch;
mod login;
mod meter;
mod pull;
mod trouble;

pub(super) use cache::Cache;
pub(super) use pull::Puller;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
#[path = "stage_tests.rs"]
mod stage;
