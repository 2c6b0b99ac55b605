//! Costs inside one process: codec, frames, a journalled commit, a plan on the simulated host.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on should stop")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use banger::model::{Entry, OpId, StepEvent};
use banger::store::Store;
use banger::wire::codec;
use banger::wire::frame::Frames;
use banger::wire::hello::DAEMON;
use banger::wire::request::{Envelope, Request};
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::net::UnixStream;

fn envelope() -> Envelope {
    Envelope { op_id: [7; 16], deadline_ms: 0, request: Request::ShowVm { vm: "web".to_owned() } }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn codec_round_trip(c: &mut Criterion) {
    let request = envelope();
    c.bench_function("codec: request there and back", |b| {
        b.iter(|| {
            let bytes = codec::encode(black_box(&request)).unwrap();
            codec::decode::<Envelope>(black_box(&bytes)).unwrap()
        });
    });
}

fn frame_round_trip(c: &mut Criterion) {
    let runtime = runtime();
    let limit = Duration::from_secs(5);
    let (mut client, mut server) = runtime.block_on(async {
        let (client, server) = UnixStream::pair().unwrap();
        let (client, server) = tokio::join!(
            Frames::connect(client, DAEMON, limit),
            Frames::accept(server, DAEMON, limit)
        );
        (client.unwrap(), server.unwrap())
    });
    let request = envelope();
    c.bench_function("frames: request over a socket pair", |b| {
        b.iter(|| {
            runtime.block_on(async {
                client.send(&request).await.unwrap();
                server.receive::<Envelope>().await.unwrap().unwrap()
            })
        });
    });
}

fn journal_commit(c: &mut Criterion) {
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let entry = Entry { step: "lease-tap".to_owned(), event: StepEvent::Started, unix_ms: 1 };
    let mut n = 0;
    c.bench_function("store: one journal entry, durable", |b| {
        b.iter(|| {
            n += 1;
            let entries = vec![entry.clone()];
            runtime.block_on(store.append(OpId([1; 16]), n, entries)).unwrap();
        });
    });
    let store = Arc::new(store);
    c.bench_function("store: 64 entries at once, durable", |b| {
        b.iter(|| {
            let writes = (0..64_u8).map(|op| {
                n += 1;
                let (store, entries) = (Arc::clone(&store), vec![entry.clone()]);
                async move { store.append(OpId([op; 16]), n, entries).await }
            });
            runtime.block_on(futures::future::join_all(writes))
        });
    });
}

criterion_group!(benches, codec_round_trip, frame_round_trip, journal_commit);
criterion_main!(benches);
