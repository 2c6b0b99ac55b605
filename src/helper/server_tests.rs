//! The server on a recording executor: no root needed.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::helper::config::tests::config;
use crate::wire::hello::Protocol;
use crate::wire::helper::HelperBody;

#[derive(Debug, Default)]
struct Recorder {
    plans: Mutex<Vec<Plan>>,
    begun: Arc<tokio::sync::Notify>,
    gate: Option<Arc<Semaphore>>,
}

impl Executor for Recorder {
    fn execute(&self, plan: Plan) -> BoxFuture<'_, Result<HelperOk, Trouble>> {
        Box::pin(async move {
            self.begun.notify_one();
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            let fails = matches!(plan, Plan::ListNat);
            self.plans.lock().unwrap().push(plan);
            if fails { Err(Trouble::new(Code::Host, "list", "nat")) } else { Ok(HelperOk::Done) }
        })
    }
}

struct World {
    dir: tempfile::TempDir,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl World {
    fn start(gate: Option<Arc<Semaphore>>) -> Self {
        Self::for_owner(nix::unistd::getuid().as_raw(), gate)
    }

    fn for_owner(owner_uid: u32, gate: Option<Arc<Semaphore>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Arc::new(Config {
            socket: dir.path().join("helper.sock"),
            run_dir: dir.path().to_owned(),
            owner_uid,
            ..config()
        });
        let recorder = Arc::new(Recorder { gate, ..Recorder::default() });
        let audit = Audit::open(&dir.path().join("audit"), nix::unistd::getgid().as_raw()).unwrap();
        let stop = CancellationToken::new();
        let listening = Listening::bind(&config).unwrap();
        assert!(matches!(Listening::bind(&config), Err(ServeError::Locked(_))));
        let executor = Arc::clone(&recorder) as Arc<dyn Executor>;
        let server = tokio::spawn(serve(listening, config, audit, executor, stop.clone()));
        Self { dir, recorder, stop, server }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("helper.sock")).await.unwrap()
    }

    async fn greeted(&self) -> UnixStream {
        let mut stream = self.connect().await;
        stream.write_all(&HELPER.greeting().encode()).await.unwrap();
        let mut answer = [0; 16];
        stream.read_exact(&mut answer).await.unwrap();
        stream
    }

    async fn ask(&self, body: HelperBody) -> HelperReply {
        let stream = self.connect().await;
        let mut frames = Frames::connect(stream, HELPER, READ_LIMIT).await.unwrap();
        frames.send(&HelperRequest { op_id: [9; 16], body }).await.unwrap();
        frames.receive().await.unwrap().unwrap()
    }

    fn audited(&self) -> usize {
        std::fs::read_to_string(self.dir.path().join("audit")).unwrap().lines().count()
    }

    async fn stop(self) -> Vec<serde_json::Value> {
        self.stop.cancel();
        self.server.await.unwrap();
        assert!(!self.dir.path().join("helper.sock").exists());
        let text = std::fs::read_to_string(self.dir.path().join("audit")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn requests_are_decided_done_and_audited() {
    let world = World::start(None);
    assert_eq!(world.ask(HelperBody::Status).await, HelperReply::Ok(HelperOk::Done));
    let denied = world.ask(HelperBody::RemoveBridge { bridge: "docker0".into() }).await;
    assert!(matches!(denied, HelperReply::Denied { .. }), "{denied:?}");
    let failed = world.ask(HelperBody::ListNat { bridge: "br-fc".into() }).await;
    let expected = HelperReply::Failed { code: "host".into(), message: "list nat".into() };
    assert_eq!(failed, expected);
    assert_eq!(*world.recorder.plans.lock().unwrap(), [Plan::Status, Plan::ListNat]);
    let lines = world.stop().await;
    let verdicts: Vec<_> = lines.iter().map(|line| line["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["ok", "denied", "failed"]);
    assert_eq!(lines[0]["op_id"], format!("op-{}", "09".repeat(16)));
    assert_eq!(lines[2]["request"], "list-nat");
}

#[tokio::test]
async fn nonsense_does_no_harm() {
    let world = World::start(None);
    // Oversized, random, half a frame, half a greeting, another protocol.
    let mut oversized = world.greeted().await;
    oversized
        .write_all(&(u32::try_from(MAX_FRAME_BYTES).unwrap() + 1).to_le_bytes())
        .await
        .unwrap();
    let mut answer = vec![];
    oversized.read_to_end(&mut answer).await.unwrap();
    let mut random = world.greeted().await;
    random.write_all(&[4, 0, 0, 0, 0xff, 0xfe, 0xfd, 0xfc]).await.unwrap();
    random.read_to_end(&mut answer).await.unwrap();
    let mut half = world.greeted().await;
    half.write_all(&[100, 0, 0, 0, 1, 2]).await.unwrap();
    drop(half);
    let mut greeting = world.connect().await;
    greeting.write_all(b"BNG").await.unwrap();
    drop(greeting);
    let newer = Protocol { min: 8, max: 9, ..HELPER };
    let refused = Frames::connect(world.connect().await, newer, READ_LIMIT).await.unwrap_err();
    let text = crate::model::chain(&refused);
    assert!(text.contains("versions 8 to 9") && text.contains("version 1"), "{text}");
    assert_eq!(world.ask(HelperBody::Status).await, HelperReply::Ok(HelperOk::Done));
    assert_eq!(world.recorder.plans.lock().unwrap().len(), 1);
    let lines = world.stop().await;
    assert_eq!(lines.iter().filter(|line| line["verdict"] == "malformed").count(), 5);
}

#[tokio::test]
async fn strangers_are_denied_unheard() {
    if nix::unistd::getuid().is_root() {
        return; // root may always ask; `tests/helper` has a real stranger
    }
    let world = World::for_owner(nix::unistd::getuid().as_raw() + 1, None);
    let reply = world.ask(HelperBody::Status).await;
    assert_eq!(reply, HelperReply::Denied { reason: "not allowed".into() });
    assert!(world.recorder.plans.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_is_given_up() {
    let world = World::start(None);
    let mut silent = world.greeted().await;
    let mut rest = vec![];
    silent.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    // Two that only looked whether somebody listens.
    for leaver in [world.connect().await, world.greeted().await] {
        drop(leaver);
    }
    while world.audited() < 3 {
        tokio::task::yield_now().await;
    }
    let lines = world.stop().await;
    assert_eq!(lines[0]["error"], "no request within 5s");
    assert!(lines.iter().all(|line| line["verdict"] == "silent"), "{lines:?}");
}

#[tokio::test]
async fn what_was_begun_is_finished_though_nobody_waits() {
    let gate = Arc::new(Semaphore::new(0));
    let world = World::start(Some(Arc::clone(&gate)));
    let mut frames = Frames::connect(world.connect().await, HELPER, READ_LIMIT).await.unwrap();
    frames.send(&HelperRequest { op_id: [9; 16], body: HelperBody::Status }).await.unwrap();
    drop(frames);
    let recorder = Arc::clone(&world.recorder);
    recorder.begun.notified().await;
    world.stop.cancel();
    gate.add_permits(1);
    let lines = world.stop().await;
    assert_eq!(*recorder.plans.lock().unwrap(), [Plan::Status]);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["verdict"], "ok");
}
