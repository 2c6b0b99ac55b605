//! The program that an image is there for, where the agent is the init: started once a boot as a job,
//! and ended with the signal that it asks for before anything else is.
//!
//! What must not be done here: start it twice. A server that takes the place of one that died finds
//! the mark of this boot.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use banger_agent::contract::codec;
use banger_agent::contract::config::GuestConfig;
use banger_agent::contract::exec::AGENT;
use banger_agent::contract::image::{ImageStart, Main};
use banger_agent::contract::job::{JobReply, JobRequest, StartJob, VERB};
use nix::libc;
use nix::poll::{PollTimeout, poll};

use crate::{jobs, log};

/// `/run` is of this boot: the number of the job, and how it wants to be ended.
const MARK: &str = "/run/banger-main";
const LOOK_AGAIN: u8 = 20; // ms

/// Returns at once. A program that does not start is told on the console; the guest serves anyway.
pub(crate) fn start(image: &ImageStart, config: &GuestConfig) {
    let Some(main) = image.main.clone() else { return };
    let job = StartJob {
        argv: main.argv.clone(),
        env: config.env.clone(),
        cwd: main.cwd.clone(),
        user: main.user.clone(),
        op_id: config.op_id,
    };
    let start = move || {
        let begun = File::create_new(MARK).map_err(|error| format!("{MARK}: {error}"));
        let mark = match begun {
            Ok(mark) => mark,
            Err(_) if fs::exists(MARK).unwrap_or(false) => return,
            Err(error) => return log::line(format_args!("the image's program: {error}")),
        };
        match begin(&job).and_then(|id| note(mark, id, &main).map_err(|error| error.to_string())) {
            Ok(id) => log::line(format_args!("the image's program runs as job {id}")),
            Err(why) => log::line(format_args!("the image's program did not start: {why}")),
        }
    };
    if let Err(error) = std::thread::Builder::new().name("main program".into()).spawn(start) {
        log::line(format_args!("the image's program did not start: {error}"));
    }
}

/// As any client would; its keeper is nobody's child by then.
fn begin(job: &StartJob) -> Result<u32, String> {
    let asked = || -> io::Result<std::process::Output> {
        let request = codec::encode(&JobRequest::Start(job.clone())).map_err(io::Error::other)?;
        #[allow(clippy::disallowed_methods, reason = "this very program, as another process")]
        let mut client = Command::new("/proc/self/exe");
        client.arg0(AGENT).arg(VERB);
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = client.spawn()?;
        if let Some(mut stdin) = client.stdin.take() {
            stdin.write_all(&request)?;
        }
        client.wait_with_output()
    };
    let output = asked().map_err(|error| error.to_string())?;
    match codec::decode(&output.stdout) {
        Ok(JobReply::Started { id }) => Ok(id),
        _ => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

fn note(mut mark: File, id: u32, main: &Main) -> io::Result<u32> {
    let signal = main.stop_signal.as_deref().unwrap_or_default();
    mark.write_all(format!("{id} {signal}").as_bytes())?;
    Ok(id)
}

/// Asks it to end in its own way, and waits for that no longer than `limit`. What asks for no signal
/// of its own ends with all else.
pub(crate) fn stop(limit: Duration) {
    let mark = fs::read_to_string(MARK).unwrap_or_default();
    let Some((id, name)) = mark.split_once(' ') else { return };
    let (Ok(id), Some(signal)) = (id.parse(), signal(name)) else { return };
    let Some(pid) = jobs::running(id) else { return };
    log::line(format_args!("the image's program is asked to end by {name}"));
    // SAFETY: sends a signal to a process of the guest's, which is about to end as a whole.
    #[allow(unsafe_code, reason = "real-time signals have no safe form")]
    unsafe {
        libc::kill(pid, signal);
    }
    let end = Instant::now() + limit;
    while jobs::running(id).is_some() && Instant::now() < end {
        let _ = poll(&mut [], PollTimeout::from(LOOK_AGAIN));
    }
}

/// `SIGQUIT`, `QUIT`, `3`, `RTMIN+3`.
fn signal(text: &str) -> Option<i32> {
    let text = text.trim().to_ascii_uppercase();
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    if let Ok(number) = name.parse::<i32>() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    if let Some(more) = name.strip_prefix("RTMIN") {
        let more: i32 = if more.is_empty() { 0 } else { more.strip_prefix('+')?.parse().ok()? };
        let number = libc::SIGRTMIN().checked_add(more)?;
        return (0..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
    Some(signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_written_in_many_ways() {
        for (text, number) in [
            ("SIGQUIT", libc::SIGQUIT),
            ("quit", libc::SIGQUIT),
            ("3", 3),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
            ("RTMIN", libc::SIGRTMIN()),
        ] {
            assert_eq!(signal(text), Some(number), "{text}");
        }
        for bad in ["", "0", "-9", "999", "SIGNOTHING", "RTMIN+x", "RTMIN+99", "RTMIN-1"] {
            assert_eq!(signal(bad), None, "{bad}");
        }
    }
}
