//! Jobs: programs that run on in the guest though nobody waits for them. They are asked of the agent
//! as a program, [`super::exec::AGENT`] with the argument [`VERB`]: a [`JobRequest`] on its standard
//! input to the end, a [`JobReply`] on its standard output. What a job wrote comes as it was written,
//! on standard output and error.

use super::codec::{Decode, Encode};

pub const VERB: &str = "job";
/// What is kept of what a job writes: the end of it.
pub const OUTPUT_BYTES: u64 = 16 << 20;
/// So many that have ended are remembered.
pub const JOBS_KEPT: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum JobRequest {
    Start(StartJob),
    /// All there are, oldest first.
    List,
    /// What it wrote, and with `follow` what it writes until it ends.
    Output {
        id: u32,
        follow: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StartJob {
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Instead of the user's home.
    pub cwd: Option<String>,
    pub user: String,
    pub op_id: [u8; 16],
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum JobReply {
    Started { id: u32 },
    Jobs(Vec<JobInfo>),
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JobInfo {
    pub id: u32,
    pub argv: Vec<String>,
    pub user: String,
    pub pid: u32,
    pub started_unix_ms: u64,
    pub ended_unix_ms: Option<u64>,
    pub state: JobState,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum JobState {
    Running,
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// The guest ended while it ran, or whoever looked after it was killed.
    Lost,
}
