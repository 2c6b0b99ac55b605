//! Images from Debian's own registry, over good lines and bad ones, with and without a daemon that is
//! killed under the pull.

mod bundles;
mod debian;
mod depot;
mod line;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use self::depot::{DEPOT, Depot, Door, LARGE, layout, push_layout};
use self::line::{LINE, Line, State};
use crate::support::{Host, Outcome, Settings, new_host, sha256, until};

const LIMIT: Duration = Duration::from_secs(120);

/// Of a daemon that may speak to both without TLS.
fn settings(stocked: bool) -> Settings {
    let config = format!("[registries]\nplain_http = [\"{DEPOT}\", \"{LINE}\"]\ntries = 20");
    Settings { config, stocked, ..Settings::default() }
}

fn files(host: &Host, below: &str) -> Vec<PathBuf> {
    let dir = fs::read_dir(host.dir.join("s/blobs").join(below)).unwrap();
    dir.map(|entry| entry.unwrap().path()).collect()
}

/// Each whole blob is what its name says.
fn check_cache(host: &Host) {
    for path in files(host, "sha256") {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(sha256(&fs::read(&path).unwrap()), name);
    }
}

fn image(host: &Host, name: &str) -> Value {
    let shown = host.banger(&["image", "show", name]).ok();
    serde_json::from_str(&shown).unwrap()
}

fn spawn(host: &Host, args: &[&str]) -> Child {
    let mut command = host.banger_command(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn interrupt(child: &Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
}

fn outcome(child: Child) -> Outcome {
    Outcome::of(child.wait_with_output().unwrap())
}

#[test]
fn an_image_from_a_registry_runs_in_one_command() {
    let host = new_host!(settings(true));
    let _depot = Depot::start(&host, Door::default());
    let line = Line::start(&host);
    let from = layout(&host, "layout", "one");
    push_layout(&host, &from, "team/app:1", Door::default());
    let reference = format!("{LINE}/team/app:1");
    let run = ["vm", "run", "--rm", "--image", &reference];
    let never = [&run[..], &["--pull", "never", "--", "hello"]].concat();
    assert_eq!(host.banger(&never).code, Some(125));
    assert_eq!(line.requests(), 0);
    let hello = [&run[..], &["--", "hello"]].concat();
    let said = host.banger(&hello).expect(0);
    assert_eq!(said.stdout, "one\n");
    assert!(said.stderr.contains("layer 2 of 3  sha256:"), "{}", said.stderr);
    // It is here now, by its whole name and its short one.
    let requests = line.requests();
    assert_eq!(host.banger(&hello).ok(), "one\n");
    assert_eq!(line.requests(), requests);
    let shown = image(&host, &reference);
    assert_eq!(shown["name"], *reference);
    let pinned = shown["source"].as_str().unwrap().to_owned();
    assert!(pinned.starts_with(&format!("{LINE}/team/app@sha256:")), "{pinned}");
}

#[test]
fn a_tag_that_moves_leaves_vms_what_they_boot_from() {
    let host = new_host!(settings(true));
    let _depot = Depot::start(&host, Door::default());
    push_layout(&host, &layout(&host, "first", "one"), "app:1", Door::default());
    let reference = format!("{DEPOT}/app:1");
    host.banger(&["vm", "create", "--name", "old", "--image", &reference]).ok();
    push_layout(&host, &layout(&host, "second", "two"), "app:1", Door::default());
    let run = ["vm", "run", "--rm", "--pull", "always", "--image", &reference, "--", "hello"];
    let before = image(&host, &reference);
    assert_eq!(host.banger(&run).ok(), "two\n");
    let unchanged = host.banger(&["image", "pull", &reference]).expect(0);
    assert!(unchanged.stderr.contains("is what the registry has"), "{}", unchanged.stderr);
    assert_eq!(unchanged.stdout, format!("{reference}\n"));
    let kept = image(&host, before["source"].as_str().unwrap());
    assert_eq!(kept["digest"], before["digest"]);
    host.banger(&["vm", "restart", "old"]).ok();
    assert_eq!(host.banger(&["vm", "exec", "old", "--", "hello"]).ok(), "one\n");
}

#[test]
fn who_it_is_and_who_asks_is_checked() {
    let authority = "[registries]\ncertificates = [\"DIR/depot/ca.pem\"]\ntries = 2";
    let mut host = new_host!(Settings { stocked: false, ..Settings::default() });
    let door = Door { tls: true, password: true };
    let _depot = Depot::start(&host, door);
    push_layout(&host, &layout(&host, "layout", "one"), "private/app:1", door);
    let reference = format!("{DEPOT}/private/app:1");
    let pull = ["image", "pull", reference.as_str()];
    let stranger = host.banger(&pull).expect(1);
    assert!(stranger.stderr.contains("[registries] certificates"), "{}", stranger.stderr);
    let config = host.dir.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let authority = authority.replace("DIR", &host.dir.display().to_string());
    fs::write(&config, format!("{text}\n{authority}\n")).unwrap();
    host.kill_daemon();
    host.start_daemon();
    let nobody = host.banger(&pull).expect(1);
    assert!(nobody.stderr.contains("podman login"), "{}", nobody.stderr);
    let auth = host.dir.join("s/.config/containers");
    fs::create_dir_all(&auth).unwrap();
    // me:wrong, then me:pass:word
    for (secret, code) in [("bWU6d3Jvbmc=", 1), ("bWU6cGFzczp3b3Jk", 0)] {
        let entry = format!("{{\"auths\": {{\"{DEPOT}\": {{\"auth\": \"{secret}\"}}}}}}");
        fs::write(auth.join("auth.json"), entry).unwrap();
        host.banger(&pull).expect(code);
    }
    for secret in ["pass:word", "bWU6cGFzczp3b3Jk", "bWU6d3Jvbmc="] {
        assert!(!host.log("bangerd.log").contains(secret), "a secret in the log");
    }
    check_cache(&host);
}

#[test]
fn a_line_that_breaks_and_spoils_delays_a_pull_and_nothing_else() {
    let host = new_host!(settings(false));
    let _depot = Depot::start(&host, Door::default());
    let line = Line::start(&host);
    let (direct, bad) = (format!("{DEPOT}/app:1"), format!("{LINE}/app:1"));
    push_layout(&host, &layout(&host, "layout", "one"), "app:1", Door::default());
    for seed in 1..=4 {
        line.set(State::Bad(seed));
        // Who gives up in the end is asked again, and goes on where it was.
        let pulled = || host.banger(&["image", "pull", &bad]);
        let mut tries = 0;
        while pulled().code != Some(0) {
            tries += 1;
            assert!(tries < 20, "seed {seed}: {:?}", pulled());
        }
        check_cache(&host);
        assert_eq!(files(&host, "partial").len(), 0, "seed {seed}");
        let through = image(&host, &bad)["digest"].clone();
        host.banger(&["image", "delete", &bad]).ok();
        for path in files(&host, "sha256") {
            fs::remove_file(path).unwrap();
        }
        line.set(State::Good);
        host.banger(&["image", "pull", &direct]).ok();
        assert_eq!(image(&host, &direct)["digest"], through, "seed {seed}");
        host.banger(&["image", "delete", &direct]).ok();
        for path in files(&host, "sha256") {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_pull_outlives_its_daemon_and_fetches_nothing_twice() {
    let mut host = new_host!(settings(false));
    let _depot = Depot::start(&host, Door::default());
    let line = Line::start(&host);
    push_layout(&host, &layout(&host, "layout", "one"), "app:1", Door::default());
    let (reference, half) = (format!("{LINE}/app:1"), LARGE as u64 / 2);
    line.set(State::Held(half));
    let client = spawn(&host, &["image", "pull", &reference]);
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
    // The line hands on pieces of 8 KiB.
    // And all that is not held, so that nothing else is on its way.
    until("half of the large layer", LIMIT, || {
        let partial = files(&host, "partial");
        files(&host, "sha256").len() == 5
            && partial.iter().any(|path| size(path) + (16 << 10) > half)
    });
    host.kill_daemon();
    line.set(State::Good);
    host.start_daemon();
    let pulled = outcome(client).expect(0);
    assert_eq!(pulled.stdout, format!("{reference}\n"));
    assert!(pulled.stderr.contains("goes on where it was"), "{}", pulled.stderr);
    check_cache(&host);
    let (served, all) = (line.served(), files(&host, "sha256").iter().map(size).sum::<u64>());
    assert!(served < all + (256 << 10), "{served} bytes of {all}");
    // The one that was cut short has an end, too.
    let ops = host.banger(&["ops", "list", "--json"]).ok();
    let ops: Value = serde_json::from_str(&ops).unwrap();
    let ends: Vec<_> = ops.as_array().unwrap().iter().map(|op| op["outcome"].clone()).collect();
    assert_eq!(ends, ["done", "rolled-back"]);
}

#[test]
fn ten_who_ask_at_one_time_wait_for_one_pull_and_the_last_ends_it() {
    let host = new_host!(settings(false));
    let _depot = Depot::start(&host, Door::default());
    let line = Line::start(&host);
    push_layout(&host, &layout(&host, "layout", "one"), "app:1", Door::default());
    let reference = format!("{LINE}/app:1");
    line.set(State::Held(4 << 20));
    let ask = || spawn(&host, &["image", "pull", &reference]);
    let one = ask();
    until("the line is held", LIMIT, || line.held() == 1);
    let clients: Vec<_> = (0..9).map(|_| ask()).collect();
    until("nine wait with it", LIMIT, || {
        host.log("bangerd.log").matches("waits for the same").count() == 9
    });
    let open = || {
        let ops = host.banger(&["ops", "list", "--json"]).ok();
        serde_json::from_str::<Value>(&ops).unwrap().as_array().unwrap().len()
    };
    // Ctrl-C of one leaves it to the others.
    interrupt(&one);
    let left = outcome(one);
    assert_eq!(left.code, Some(130), "{left:?}");
    assert_eq!((open(), line.held()), (1, 1));
    line.set(State::Good);
    for client in clients {
        assert_eq!(outcome(client).expect(0).stdout, format!("{reference}\n"));
    }
    assert_eq!((open(), line.blobs()), (1, 4), "the configuration and three layers, once");
    check_cache(&host);
}

#[test]
fn ctrl_c_leaves_whole_blobs_alone() {
    let host = new_host!(settings(false));
    let _depot = Depot::start(&host, Door::default());
    let line = Line::start(&host);
    push_layout(&host, &layout(&host, "layout", "one"), "app:1", Door::default());
    let reference = format!("{LINE}/app:1");
    line.set(State::Held(4 << 20));
    let client = spawn(&host, &["image", "pull", &reference]);
    until("the small ones are whole", LIMIT, || {
        files(&host, "sha256").len() >= 4 && line.held() == 1
    });
    interrupt(&client);
    let cancelled = outcome(client);
    assert_eq!(cancelled.code, Some(130), "{cancelled:?}");
    assert_eq!(files(&host, "partial").len(), 0);
    check_cache(&host);
    assert_eq!(host.banger(&["image", "list", "-q"]).ok(), "");
    line.set(State::Good);
    host.banger(&["image", "pull", &reference]).ok();
    // What it was made from is not needed any more.
    let cached = files(&host, "sha256").len();
    let dry = host.banger(&["image", "prune", "--cache", "--dry-run"]).expect(0);
    assert_eq!(dry.stdout.matches("goes").count(), cached, "{dry:?}");
    let emptied = host.banger(&["image", "prune", "--cache"]).expect(0);
    assert!(emptied.stderr.contains(&format!("removed {cached} blobs")), "{}", emptied.stderr);
    assert_eq!(files(&host, "sha256").len(), 0);
    assert_eq!(image(&host, &reference)["name"], *reference);
}
