//! Container images run as they say: their program, as their user, with their environment, where they
//! say, and ended by their signal.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Host, busybox_tar, new_host, oci, until};

const LIMIT: Duration = Duration::from_secs(60);
/// Tells of itself, and ends in its own way when it is asked to by SIGUSR1.
const ENTRY: &str = "#!/bin/sh
trap 'echo asked; echo asked > /data/asked; sync; exit 0' USR1
echo \"$@ as $(id -u):$(id -g) in $(pwd) with $FROM_IMAGE $BOTH\"
[ \"$1\" != serve ] || while :; do sleep 0.1; done
";

/// As Alpine's, an image that has an init which was never meant to run, and no `/srv` and `/data`.
fn import(host: &Host, name: &str, run: &Value) {
    let extra = oci::layer(&[
        ("usr/bin/entry", 0o755, 0, ENTRY),
        ("etc/passwd", 0o644, 0, "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"),
        ("sbin/init", 0o755, 0, "#!/bin/sh\necho started > /started\nexec /bin/sleep 100000\n"),
    ]);
    let layout = host.dir.join(name);
    oci::layout(&layout, &[fs::read(busybox_tar()).unwrap(), extra], run);
    host.banger(&["image", "import", name, &layout.display().to_string()]).ok();
}

#[test]
fn an_image_runs_as_it_says() {
    let host = new_host!();
    let run = json!({"Entrypoint": ["entry"], "Cmd": ["by", "itself"], "User": "app",
        "Env": ["FROM_IMAGE=image", "BOTH=image", "PATH=/usr/bin:/bin"], "WorkingDir": "/srv/app"});
    import(&host, "app", &run);
    let rm = ["vm", "run", "--rm", "--image", "app"];
    assert_eq!(host.banger(&rm).ok(), "by itself as 1000:1000 in /srv/app with image image\n");
    let more = [&rm[..], &["-e", "BOTH=own", "-u", "7:8", "-w", "/", "--", "a b"]].concat();
    assert_eq!(host.banger(&more).ok(), "a b as 7:8 in / with image own\n");
    host.banger(&["vm", "create", "--name", "web", "--image", "app"]).ok();
    let exec = ["vm", "exec", "web", "--", "sh", "-c", "echo $(id -u) $(pwd) $FROM_IMAGE; exit 3"];
    assert_eq!(host.banger(&exec).expect(3).stdout, "1000 /srv/app image\n");
    // Its init was not meant to run, and did not.
    host.banger(&["vm", "exec", "-u", "root", "web", "--", "test", "!", "-e", "/started"]).ok();
    let said = host.banger(&["vm", "logs", "--job", "1", "web"]).ok();
    assert_eq!(said, "by itself as 1000:1000 in /srv/app with image image\n");
    host.banger(&["vm", "delete", "web"]).ok();
}

#[test]
fn a_program_runs_from_every_start_on_and_ends_by_its_own_signal() {
    let host = new_host!();
    let run = json!({"Entrypoint": ["/usr/bin/entry"], "Cmd": ["serve"], "StopSignal": "SIGUSR1",
        "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}}});
    import(&host, "server", &run);
    let shown: Value =
        serde_json::from_str(&host.banger(&["image", "show", "server"]).ok()).unwrap();
    assert_eq!(shown["config"]["stop_signal"], "SIGUSR1");
    host.banger(&["vm", "run", "-d", "--name", "web", "--image", "server"]).ok();
    let jobs = |host: &Host| -> Vec<Value> {
        serde_json::from_str(&host.banger(&["vm", "jobs", "--json", "web"]).ok()).unwrap()
    };
    until("it runs", LIMIT, || {
        let jobs = jobs(&host);
        jobs.len() == 1 && jobs[0]["state"] == "running" && jobs[0]["command"][1] == "serve"
    });
    // That it runs is no promise that it is ready to be asked.
    until("it has said something", LIMIT, || {
        host.banger(&["vm", "logs", "--job", "1", "web"]).ok().contains("serve as")
    });
    host.banger(&["vm", "stop", "web"]).ok();
    host.banger(&["vm", "start", "web"]).ok();
    until("it runs again", LIMIT, || jobs(&host).last().unwrap()["state"] == "running");
    let ended = jobs(&host);
    assert_eq!(
        (ended.len(), &ended[0]["state"], &ended[0]["exit_code"]),
        (2, &"exited".into(), &0.into())
    );
    assert_eq!(host.banger(&["vm", "exec", "web", "--", "cat", "/data/asked"]).ok(), "asked\n");
    host.banger(&["vm", "delete", "web"]).ok();
}

#[test]
fn an_image_whose_program_is_an_init_boots_it() {
    let host = new_host!();
    import(&host, "own", &json!({"Cmd": ["/sbin/init"], "Env": ["FROM_IMAGE=image"]}));
    host.banger(&["vm", "run", "-d", "--name", "web", "--image", "own"]).ok();
    let seen = "cat /started; tr '\\0' '\\n' < /proc/1/environ | grep FROM_IMAGE; echo $FROM_IMAGE";
    let exec = host.banger(&["vm", "exec", "web", "--", "sh", "-c", seen]).ok();
    assert_eq!(exec, "started\nFROM_IMAGE=image\nimage\n");
    host.banger(&["vm", "kill", "web"]).ok();
    host.banger(&["vm", "delete", "web"]).ok();
}
