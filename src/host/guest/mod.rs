//! The guest's side of the host: the daemon's link to the agent, and the SSH client.
