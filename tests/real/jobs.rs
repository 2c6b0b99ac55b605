//! Jobs: what was started in a guest runs on, whoever ends meanwhile.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Host, new_host, until};

const LIMIT: Duration = Duration::from_secs(60);

fn job(host: &Host, id: &str) -> serde_json::Value {
    let jobs = host.banger(&["vm", "jobs", "--json", "g"]).ok();
    let jobs: Vec<serde_json::Value> = serde_json::from_str(&jobs).unwrap();
    jobs.into_iter().find(|job| job["id"] == id.parse::<u32>().unwrap()).expect("the job")
}

#[test]
fn a_job_outlives_client_and_daemon_and_its_output_and_end_are_kept() {
    let mut host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "g", "-e", "FROM_RUN=one"]).ok();
    let line = "echo $FROM_RUN $MINE; echo oops >&2; until [ -e /root/go ]; do sleep 0.1; done; \
                echo gone; exit 7";
    let detach = ["vm", "exec", "--detach", "-e", "MINE=two", "g", "--", "sh", "-c", line];
    let id = host.banger(&detach).ok().trim().to_owned();
    assert_eq!(job(&host, &id)["state"], "running");
    let mut follow = host.banger_command(&["vm", "logs", "-f", "--job", &id, "g"]);
    let follow = follow.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut follow = follow.spawn().unwrap();
    // It has its way to the guest once it says something.
    let mut said = BufReader::new(follow.stdout.take().unwrap());
    let mut first = String::new();
    said.read_line(&mut first).unwrap();
    assert_eq!(first, "one two\n");
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(job(&host, &id)["state"], "running");
    host.banger(&["vm", "exec", "g", "--", "touch", "/root/go"]).ok();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    let output = follow.wait_with_output().unwrap();
    assert_eq!(rest, "gone\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "oops\n");
    until("the end is known", LIMIT, || job(&host, &id)["state"] == "exited");
    assert_eq!(job(&host, &id)["exit_code"], 7);
    let kept = host.banger(&["vm", "logs", "--job", &id, "g"]).expect(0);
    assert_eq!((kept.stdout.as_str(), kept.stderr.as_str()), ("one two\ngone\n", "oops\n"));
    // One that is killed, one that cannot be started, one that its VM takes along.
    let sleeps = ["vm", "exec", "--detach", "g", "--", "sleep", "1000"];
    let killed = host.banger(&sleeps).ok().trim().to_owned();
    let pid = job(&host, &killed)["pid"].to_string();
    host.banger(&["vm", "exec", "g", "--", "kill", &pid]).ok();
    until("it is killed", LIMIT, || job(&host, &killed)["signal"] == 15);
    host.banger(&["vm", "exec", "--detach", "g", "--", "no-such-program"]).expect(127);
    let lost = host.banger(&sleeps).ok().trim().to_owned();
    host.banger(&["vm", "exec", "g", "--", "sync"]).ok();
    host.banger(&["vm", "kill", "g"]).ok();
    host.banger(&["vm", "start", "g"]).ok();
    assert_eq!(job(&host, &lost)["state"], "lost");
    assert_eq!(job(&host, &id)["exit_code"], 7, "and the others are remembered");
    host.banger(&["vm", "logs", "--job", "99", "g"]).expect(4);
}
