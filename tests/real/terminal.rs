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
        let mut new = vec!["new-session", "-d", "-x", "80", "-y", "24", &cli];
        new.extend(args);
        screen.tmux(&new);
        screen.tmux(&["set", "-g", "remain-on-exit", "on"]);
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
    screen.type_line("echo rows-and-columns: $(stty size)");
    screen.shows("rows-and-columns: 24 80");
    screen.tmux(&["resize-window", "-x", "100", "-y", "30"]);
    until("the resize arrives", Duration::from_secs(20), || {
        screen.type_line("clear; echo now: $(stty size)");
        screen.tmux(&["capture-pane", "-p"]).contains("now: 30 100")
    });
    // Ctrl-C ends what runs in the guest, not the connection.
    screen.type_line("clear; sleep 1000");
    screen.shows("sleep 1000");
    screen.key("C-c");
    screen.type_line("echo still-$((40 + 2))");
    screen.shows("still-42");
    // A full-screen program draws and gives the screen back.
    screen.type_line("clear; vi /root/file");
    screen.shows("~");
    screen.key("i");
    screen.shows("I /root/file");
    screen.tmux(&["send-keys", "-l", "written in vi"]);
    screen.key("Escape");
    screen.shows("- /root/file"); // what follows an Escape too closely is taken for a function key
    screen.type_line(":wq");
    screen.type_line("clear; cat /root/file");
    screen.shows("written in vi");
    screen.type_line("exit 3");
    screen.shows("web");
    until("the client has ended", Duration::from_secs(20), || {
        screen.tmux(&["list-panes", "-F", "#{pane_dead} #{pane_dead_status}"]).trim() == "1 3"
    });
    assert_eq!(host.show("web")["state"], "running", "leaving the shell leaves the VM");
}
