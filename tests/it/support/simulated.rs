//! `bangerd --sim`: the real daemon on a simulated host, in a directory of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

pub(crate) struct Simulated {
    dir: tempfile::TempDir,
    options: Vec<String>,
    /// How many files it may have open; for a shell.
    files: String,
    child: Option<Child>,
}

impl Simulated {
    /// `options` as on the command line: `--sim-boot-ms 500`.
    pub(crate) fn start(options: &str) -> Self {
        Self::start_limited(options, "$(ulimit -Hn)")
    }

    pub(crate) fn start_limited(options: &str, files: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Several of them run at once, and the port of the name server is one.
        std::fs::write(dir.path().join("config.toml"), "[network]\ndns_listen = \"off\"\n")
            .unwrap();
        let options = options.split_whitespace().map(str::to_owned).collect();
        let mut daemon = Self { dir, options, files: files.to_owned(), child: None };
        daemon.run();
        daemon
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("bangerd.sock")
    }

    /// Everything the daemon has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// Ends it without a word, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Starts it, again, and waits until it serves.
    pub(crate) fn run(&mut self) {
        let at = |name: &str| self.dir.path().join(name);
        #[allow(clippy::disallowed_methods, reason = "a test plays the service manager")]
        let mut child = std::process::Command::new("sh")
            .args(["-c", &format!("ulimit -n {} && exec \"$@\"", self.files), "sh"])
            .arg(env!("CARGO_BIN_EXE_bangerd"))
            .args(["--sim", "--config"])
            .arg(at("config.toml"))
            .arg("--state-dir")
            .arg(at("state"))
            .arg("--run-dir")
            .arg(at("run"))
            .arg("--socket")
            .arg(at("bangerd.sock"))
            .args(&self.options)
            .env_remove("BANGER_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        self.child = Some(child);
        let log = at("log");
        let (serves, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            use std::io::Write;
            let mut log = std::fs::File::options().create(true).append(true).open(log).unwrap();
            for line in stderr.lines().map_while(Result::ok) {
                writeln!(log, "{line}").unwrap();
                if line.contains("bangerd serves") {
                    let _ = serves.send(());
                }
            }
        });
        if ready.recv().is_err() {
            panic!("bangerd ended: {}", self.log());
        }
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.kill();
    }
}
