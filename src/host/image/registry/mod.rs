//! Images from registries, and single files by their URLs, into the cache of blobs.
//!
//! ```text
//! reference -> client (TLS, credentials, one request) -> fetch (one blob, however the network is)
//!                └ index -> manifest -> configuration and layers, several at a time -> cache
//! URL and digest -> web (one file) -> fetch -> cache
//! ```
//!
//! Documents and blobs are believed by their digests alone. Nothing here knows how layers become a
//! file system; nothing outside knows how registries are spoken to.

mod cache;
mod challenge;
mod client;
mod download;
mod fetch;
mod http;
mod login;
mod meter;
mod pull;
mod trouble;
mod web;

pub(super) use cache::Cache;
pub(super) use pull::Puller;

#[cfg(test)]
mod download_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
#[path = "stage_tests.rs"]
mod stage;
