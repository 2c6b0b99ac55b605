//! The only importer of actix. Outside this room an actor is a [`Handle`].

mod dns;
mod envelope;
mod events;
mod handle;
mod watch;
