//! `WarmHost` below the state directory: `<state>/warm/<key>/`.

mod local;
mod manifest;

pub use local::LocalWarm;
