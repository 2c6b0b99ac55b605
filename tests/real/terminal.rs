//! `vm ssh` under a real terminal, driven by tmux as a person would.

use std::process::Command;
use std::time::Duration;

use crate::support::{Host, new_host, until};

struct Screen<'a> {
    host: &'a Host,
    socket: String,
}

impl<'a> Screen<'a> {
    fn open(host: &'a Host, args: &[&str]) -> Self {
        let screen = Self { host, socket: host.dir.join("tmux").display().to_string() };
        let cli = host.dir.join("bin/banger").display().to_string();
        // tmux cannot tell how a program ended where SIGCHLD is blocked for it; a shell can.
        let line = format!("{cli} {}; echo ended with $?; cat", args.join(" "));
        screen.tmux(&["new-session", "-d", "-x", "80", "-y", "24", "sh", "-c", &line]);
        screen
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut all = vec!["-f", "/dev/null", "-S", &self.socket];
        all.extend(args);
        let mut command: Command = self.host.command("tmux", &all);
        let output = command.env("TERM", "xterm-256color").output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn type_line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.tmux(&["send-keys", "Enter"]);
    }

    fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Waits until the shell waits: what is typed before goes to whatever still runs.
    fn prompts(&self) {
        let waits = || {
            let screen = self.tmux(&["capture-pane", "-p"]);
            screen.trim_end().lines().last().is_some_and(|line| line.trim_end().ends_with('#'))
        };
        until("the shell's prompt", Duration::from_secs(30), waits);
    }

    /// Types a harmless command, again if need be, until its answer is shown: busybox's shell asks
    /// the terminal where its cursor is at each prompt, and loses what is typed meanwhile.
    fn answers(&self, command: &str, answer: &str) {
        let mut tries = 0;
        let answered = || self.tmux(&["capture-pane", "-p"]).contains(answer);
        until(answer, Duration::from_secs(40), || {
            if tries % 50 == 0 {
                self.key("C-u");
                self.type_line(command);
            }
            tries += 1;
            answered()
        });
    }

    fn shows(&self, text: &str) {
        let has = || self.tmux(&["capture-pane", "-p"]).contains(text);
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while !has() {
            let screen = self.tmux(&["capture-pane", "-p"]);
            assert!(std::time::Instant::now() < end, "never shown: {text}\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn a_shell_on_a_real_terminal() {
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "web"]).ok();
    let screen = Screen::open(&host, &["vm", "ssh", "web"]);
    screen.prompts();
    screen.answers("echo rows-and-columns: $(stty size)", "rows-and-columns: 24 80");
    screen.tmux(&["resize-window", "-x", "100", "-y", "30"]);
    screen.answers("echo now: $(stty size)", "now: 30 100");
    // Ctrl-C ends what runs in the guest, not the connection.
    screen.answers("echo waits; sleep 1000", "\nwaits\n");
    screen.key("C-c");
    screen.answers("echo still-$((40 + 2))", "still-42");
    // A full-screen program draws and gives the screen back.
    screen.prompts();
    screen.answers("vi /root/file", "- /root/file");
    screen.key("i");
    screen.shows("I /root/file");
    screen.tmux(&["send-keys", "-l", "written in vi"]);
    screen.key("Escape");
    screen.shows("- /root/file"); // what follows an Escape too closely is taken for a function key
    screen.type_line(":wq");
    screen.prompts();
    screen.answers("sed s/vi/full-screen/ /root/file", "written in full-screen");
    screen.answers("exit 3", "ended with 3");
    assert_eq!(host.show("web")["state"], "running", "leaving the shell leaves the VM");
}
