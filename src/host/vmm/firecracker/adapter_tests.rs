//! The adapter against an API that keeps state as Firecracker does.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::super::machine::tests::plan;
use super::*;
use crate::model::chain;

const OP: OpId = OpId([5; 16]);

/// A played Firecracker: what it was told, and its state.
#[derive(Debug)]
struct Played {
    id: String,
    state: &'static str,
    told: Vec<String>,
    /// This path is refused with that fault.
    refuses: Option<(&'static str, &'static str)>,
}

type Shared = Arc<Mutex<Played>>;

/// A plan in a directory of its own, and a Firecracker that runs its VM.
fn host() -> (TempDir, BootPlan, Shared) {
    let dir = TempDir::new().unwrap();
    let mut plan = plan();
    plan.paths = VmPaths::new(dir.path(), dir.path(), plan.vm);
    std::fs::create_dir_all(plan.paths.sockets()).unwrap();
    let id = plan.vm.to_string();
    let played = Played { id, state: "Not started", told: vec![], refuses: None };
    (dir, plan, Arc::new(Mutex::new(played)))
}

async fn serve(socket: PathBuf, shared: Shared) {
    let listener = UnixListener::bind(socket).unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Some((line, body)) = request(&mut stream).await {
                let answer = shared.lock().unwrap().answer(&line, &body);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
    }
}

async fn request(stream: &mut UnixStream) -> Option<(String, String)> {
    let mut heard = String::new();
    loop {
        if let Some((head, body)) = heard.split_once("\r\n\r\n") {
            let length = head.to_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length: ").and_then(|n| n.parse::<usize>().ok())
            });
            if body.len() >= length.unwrap_or(0) {
                return Some((head.lines().next()?.to_owned(), body.to_owned()));
            }
        }
        let mut bytes = [0; 1024];
        match stream.read(&mut bytes).await {
            Ok(length) if length > 0 => {
                heard.push_str(std::str::from_utf8(&bytes[..length]).unwrap())
            }
            _ => return None,
        }
    }
}

impl Played {
    fn answer(&mut self, line: &str, body: &str) -> String {
        let path = line.split(' ').nth(1).unwrap().to_owned();
        let answer = |status: &str, body: &str| {
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        if line.starts_with("GET / ") {
            let (id, state) = (&self.id, self.state);
            let info = format!(
                r#"{{"id":"{id}","state":"{state}","vmm_version":"1.16.1","app_name":"Firecracker"}}"#
            );
            return answer("200 OK", &info);
        }
        if let Some((_, fault)) = self.refuses.filter(|(refused, _)| *refused == path) {
            return answer("400 Bad Request", &format!(r#"{{"fault_message":"{fault}"}}"#));
        }
        if line.starts_with("PATCH /vm ") {
            self.state = match body {
                r#"{"state":"Paused"}"# => "Paused",
                r#"{"state":"Resumed"}"# => "Running",
                other => panic!("{other}"),
            };
            return answer("204 No Content", "");
        }
        let key = body.contains("SendCtrlAltDel");
        if self.state == "Running" && !key {
            let fault = "The requested operation is not supported after starting the microVM.";
            return answer("400 Bad Request", &format!(r#"{{"fault_message":"{fault}"}}"#));
        }
        if body.contains("InstanceStart") {
            self.state = "Running";
        }
        self.told.push(path);
        answer("204 No Content", "")
    }
}

#[tokio::test]
async fn boots_what_is_not_started_and_leaves_alone_what_runs() {
    let (_dir, plan, shared) = host();
    // The VMM comes later than the question.
    let serving = serve(plan.paths.firecracker_socket(), Arc::clone(&shared));
    let served = tokio::spawn(async move {
        tokio::task::yield_now().await;
        serving.await;
    });
    let firecracker = firecracker(None, None);
    firecracker.boot(OP, &plan).await.unwrap();
    let expected: Vec<_> = requests(&plan).unwrap().into_iter().map(|call| call.path).collect();
    assert_eq!(shared.lock().unwrap().told, expected);
    firecracker.boot(OP, &plan).await.unwrap();
    assert_eq!(shared.lock().unwrap().told, expected, "told once");
    firecracker.power_button(OP, &plan.paths).await.unwrap();
    assert_eq!(shared.lock().unwrap().told.last().unwrap(), "/actions");
    served.abort();
}

#[tokio::test]
async fn half_a_configuration_is_begun_anew() {
    let (_dir, plan, shared) = host();
    let served = tokio::spawn(serve(plan.paths.firecracker_socket(), Arc::clone(&shared)));
    shared.lock().unwrap().refuses = Some(("/vsock", "not now"));
    let firecracker = firecracker(None, None);
    let error = firecracker.boot(OP, &plan).await.unwrap_err();
    assert!(chain(&error).contains("put /vsock at "), "{error:?}");
    assert!(chain(&error).ends_with("not now (HTTP 400)"), "{error:?}");
    shared.lock().unwrap().refuses = None;
    firecracker.boot(OP, &plan).await.unwrap();
    assert_eq!(shared.lock().unwrap().state, "Running");
    served.abort();
}

#[tokio::test]
async fn a_guest_that_is_paused_or_anothers_is_not_taken_for_it() {
    let (_dir, plan, shared) = host();
    let served = tokio::spawn(serve(plan.paths.firecracker_socket(), Arc::clone(&shared)));
    let firecracker = firecracker(None, None);
    shared.lock().unwrap().state = "Paused";
    let error = firecracker.boot(OP, &plan).await.unwrap_err();
    assert!(chain(&error).contains("it is paused"), "{error:?}");
    shared.lock().unwrap().id = "somebody".to_owned();
    let error = firecracker.boot(OP, &plan).await.unwrap_err();
    assert!(chain(&error).contains("another VM, somebody"), "{error:?}");
    assert!(shared.lock().unwrap().told.is_empty());
    served.abort();
}

#[tokio::test]
async fn a_guest_is_paused_and_goes_on() {
    let (_dir, plan, shared) = host();
    let served = tokio::spawn(serve(plan.paths.firecracker_socket(), Arc::clone(&shared)));
    let firecracker = firecracker(None, None);
    // Connects at once, as a VMM that runs is there: whoever asked before it served hears so.
    firecracker.boot(OP, &plan).await.unwrap();
    firecracker.pause(OP, &plan.paths).await.unwrap();
    assert_eq!(shared.lock().unwrap().state, "Paused");
    firecracker.unpause(OP, &plan.paths).await.unwrap();
    assert_eq!(shared.lock().unwrap().state, "Running");
    served.abort();
}

/// With a helper that allows both.
fn firecracker(configured: Option<PathBuf>, jailer: Option<&Path>) -> Firecracker {
    let program = configured.clone().unwrap_or_default();
    let report = crate::host::vmm::permit::tests::report(&program, jailer);
    Firecracker::new(configured, Permits::Fixed(report))
}

#[tokio::test]
async fn a_jailer_of_another_release_is_told() {
    let dir = TempDir::new().unwrap();
    let jailer = binary(&dir, "Jailer v1.14.0");
    let version = Version::parse("Firecracker v1.16.1").unwrap();
    let misfit = firecracker(None, None).misfit(&jailer, &version).await.unwrap().unwrap();
    assert!(misfit.ends_with("is version 1.14.0"), "{misfit}");
    let same = Version::parse("Firecracker v1.14.0").unwrap();
    assert_eq!(firecracker(None, None).misfit(&jailer, &same).await.unwrap(), None);
}

/// A program that says what a binary of that version says.
fn binary(dir: &TempDir, says: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.path().join(format!("firecracker-{}", says.len()));
    std::fs::write(&path, format!("#!/bin/sh\nprintf '{says}\\n\\nlog line\\n'\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_version_that_is_too_old_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let old = firecracker(Some(binary(&dir, "Firecracker v1.9.1")), None);
    let error = old.describe().await.unwrap_err();
    assert_eq!(error.code, Code::VmmMissing);
    assert!(chain(&error).contains("firecracker 1.9.1 is older than 1.12"), "{error:?}");
    // With a good one it depends on the host, which is named then.
    let jailer = binary(&dir, "Jailer v1.16.1");
    let good = firecracker(Some(binary(&dir, "Firecracker v1.16.1")), Some(&jailer));
    match good.describe().await {
        Ok(described) => {
            assert_eq!((described.version.as_str(), described.accelerator), ("1.16.1", "kvm"));
            assert_eq!(described.warning, None);
        }
        Err(error) => assert!(chain(&error).contains("it needs KVM"), "{error:?}"),
    }
}
