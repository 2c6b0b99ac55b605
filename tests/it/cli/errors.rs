//! Failures: their form, their exit codes, their story in the log.

use banger::wire::hello::{DAEMON, Protocol};
use banger::wire::reply::{Answer, Reply};

use super::samples::{OP, failure, s};
use crate::support::banger::{Finish, Surroundings};
use crate::support::canned::{Canned, Say};

fn failing(code: &str, message: &str) -> Canned {
    Canned::always(vec![Reply::Failed(failure(code, message))])
}

#[test]
fn the_form_is_sentence_operation_details_hints() {
    let mut shown = failure("guest-unreachable", "start vm web: the guest never came up");
    shown.detail = vec![s("[    1.2] Kernel panic\x1b[0m"), s("---[ end ]---")];
    shown.hints = vec![s("banger vm logs web")];
    let daemon = Canned::always(vec![Reply::Failed(shown)]);
    let said = Surroundings::new().banger(&daemon.socket(), "vm start web").said();
    let expected = format!(
        "\
banger: start vm web: the guest never came up ({OP})
    [    1.2] Kernel panic[0m
    ---[ end ]---
hint: banger vm logs web
"
    );
    assert_eq!((said.code, said.out.as_str(), said.err), (1, "", expected));
}

#[test]
fn codes_of_failures_become_exit_codes() {
    let here = Surroundings::new();
    for (code, exit) in [("not-found", 4), ("vm-busy", 5), ("overloaded", 5), ("refused", 1)] {
        let daemon = failing(code, "no");
        for line in ["vm show web", "vm start web", "vm logs web", "image delete web"] {
            let said = here.banger(&daemon.socket(), line).said();
            assert_eq!(said.code, exit, "{code} {line}");
            assert_eq!(said.err, format!("banger: web: no ({OP})\n"), "{code} {line}");
        }
        for line in
            ["vm exec web -- true", "ssh web -- true", "vm ssh web", "run -- true", "run -d", "run"]
        {
            let said = here.banger(&daemon.socket(), line).said();
            assert_eq!(said.code, 125, "{code} {line}: {}", said.err);
        }
    }
}

#[test]
fn a_daemon_that_is_down_is_told_with_a_way_out() {
    let here = Surroundings::new();
    let none = here.path().join("none.sock");
    for (line, code) in [("ps", 3), ("vm create", 3), ("exec web -- true", 125), ("run", 125)] {
        let said = here.banger(&none, line).said();
        assert_eq!(said.code, code, "{line}");
        let sentence = format!(
            "banger: cannot reach the daemon at {}: No such file or directory (os error 2) (op-",
            none.display()
        );
        assert!(said.err.starts_with(&sentence), "{}", said.err);
        assert!(said.err.contains("\nhint: start the daemon"), "{}", said.err);
    }
}

#[test]
fn another_version_is_told_by_both_numbers() {
    let newer = Protocol { min: 2, max: 3, ..DAEMON };
    let daemon = Canned::speaking(newer, |_| vec![]);
    let here = Surroundings::new();
    let said = here.banger(&daemon.socket(), "ps").said();
    assert_eq!(said.code, 3);
    let first = said.err.lines().next().unwrap();
    assert!(first.contains("this banger speaks protocol version 1,"), "{first}");
    assert!(first.contains("versions 2 to 3"), "{first}");
    let said = here.banger(&daemon.socket(), "doctor").said();
    assert!(said.out.contains("PASS  socket"), "{}", said.out);
    assert!(said.out.contains("FAIL  protocol"), "{}", said.out);
}

#[test]
fn strangers_and_nonsense_on_the_socket() {
    let here = Surroundings::new();
    let stranger = Canned::speaking(Protocol { magic: *b"STRANGER", ..DAEMON }, |_| vec![]);
    let said = here.banger(&stranger.socket(), "ps").said();
    assert_eq!(said.code, 3);
    assert!(said.err.contains("is not banger's daemon"), "{}", said.err);

    let confused = Canned::always(vec![Reply::Done(Answer::Images(vec![]))]);
    let said = here.banger(&confused.socket(), "ps").said();
    assert_eq!(said.code, 1);
    assert!(said.err.contains("where VMs was expected"), "{}", said.err);

    let gone = Canned::new(|_| vec![Say::HangUp]);
    let said = here.banger(&gone.socket(), "ps").said();
    assert_eq!(said.code, 1);
    assert!(said.err.contains("lost the daemon: the connection ended"), "{}", said.err);
}

#[test]
fn the_op_id_of_a_failure_is_in_the_log() {
    let here = Surroundings::new();
    let daemon = Canned::new(|_| {
        let mut told = failure("refused", "no");
        told.op_id = None;
        vec![Say::Reply(Reply::Failed(told))]
    });
    let said = here.banger(&daemon.socket(), "vm stop web").said();
    let op = said.err.split(['(', ')']).nth(1).unwrap();
    let sent = banger::model::OpId(daemon.envelopes()[0].op_id).to_string();
    assert_eq!(op, sent, "the one that the daemon was given");
    let log = here.log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(log[0]["op_id"], op);
    assert_eq!(log[0]["command"], "vm stop");
    assert_eq!(log[0]["subject"], "web");
    assert_eq!(log[0]["outcome"], "failed");
    assert_eq!(log[0]["code"], "refused");
    assert_eq!(log[0]["error"], "web: no");
    assert_eq!(log[0]["exit"], 1);
}

#[test]
fn an_unwritable_log_fails_nothing() {
    let here = Surroundings::new();
    let daemon = Canned::always(vec![Reply::Done(Answer::Vms(vec![]))]);
    let said = here.banger(&daemon.socket(), "ps -q").env("BANGER_LOG_DIR", "/proc/nowhere").said();
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}
