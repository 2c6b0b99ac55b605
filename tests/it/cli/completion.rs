//! Completion: a script per shell, and the names that only the daemon knows.

use banger::wire::reply::{Answer, Reply};
use banger::wire::request::Request;

use super::samples::vm;
use crate::support::banger::{Finish, Surroundings};
use crate::support::canned::{Canned, Say};

#[test]
fn every_shell_gets_a_script() {
    let here = Surroundings::new();
    let none = here.path().join("none.sock");
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let said = here.banger(&none, &format!("completion {shell}")).said();
        assert_eq!(said.code, 0, "{shell}");
        assert!(said.out.contains("BANGER_COMPLETE"), "{shell}: {}", said.out);
        assert!(!said.out.contains("target/"), "{shell} names this build: {}", said.out);
    }
    let said = here.bash(&none, "banger completion bash | bash -n").said();
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}

/// What bash would be offered for the last word.
fn offered(here: &Surroundings, socket: &std::path::Path, words: &[&str]) -> Vec<String> {
    let mut command = here.banger(socket, "");
    command.arg("--").args(words);
    command.env("BANGER_COMPLETE", "bash").env("_CLAP_IFS", "\n");
    command.env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
    let said = command.said();
    assert_eq!(said.err, "");
    said.out.lines().map(str::to_owned).collect()
}

#[test]
fn names_come_from_the_daemon() {
    let daemon = Canned::new(|envelope| {
        let vms = match envelope.request {
            Request::ListVms => {
                vec![vm("web", "running"), vm("web-2", "stopped"), vm("db", "running")]
            }
            _ => vec![],
        };
        vec![Say::Reply(Reply::Done(Answer::Vms(vms)))]
    });
    let here = Surroundings::new();
    let socket = daemon.socket();
    assert_eq!(offered(&here, &socket, &["banger", "vm", "stop", "we"]), ["web", "web-2"]);
    assert_eq!(offered(&here, &socket, &["banger", "exec", "d"]), ["db"]);
    assert_eq!(offered(&here, &socket, &["banger", "vm", "resta"]), ["restart"]);
    assert_eq!(offered(&here, &socket, &["banger", "vm", "resu"]), ["resume"]);
    assert_eq!(offered(&here, &socket, &["banger", "vm", "suspend", "d"]), ["db"]);
    let flag = socket.display().to_string();
    let nowhere = here.path().join("none.sock");
    let words = ["banger", "--socket", &flag, "vm", "stop", "d"];
    assert_eq!(offered(&here, &nowhere, &words), ["db"], "the socket named on the line");
    assert!(offered(&here, &nowhere, &["banger", "vm", "stop", "we"]).is_empty());
}
