//! What a guest does for its image from the start on: which init it boots, and which program runs.

use super::codec::{Decode, Encode};

/// Nothing of it is asked of a guest whose image came as a root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ImageStart {
    pub init: Init,
    /// Made if the image lacks them, before anything of it runs.
    pub directories: Vec<String>,
    /// Runs from the moment the guest serves, once a boot, as a job.
    pub main: Option<Main>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Init {
    /// The first that the image has; where it has none the agent stays.
    #[default]
    Any,
    /// The image's if it is systemd, else the agent.
    Systemd,
    /// This one, with the environment of every command.
    Program(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Main {
    pub argv: Vec<String>,
    /// Instead of the user's home.
    pub cwd: Option<String>,
    pub user: String,
    /// By name or number; `None` ends it as everything else.
    pub stop_signal: Option<String>,
}
