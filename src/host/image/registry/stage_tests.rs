//! A registry on loopback that has one image and answers as it is told to, or by chance.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::host::image::oci::ARCH;
use crate::model::{Digest, ImageRef};

/// What is done instead of an answer, or to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing is wrong.
    None,
    /// So many bytes of the body, then the end.
    Cut(usize),
    /// So many bytes of the body, then silence.
    Stall(usize),
    /// The byte there is another.
    Corrupt(usize),
    /// All of it, whatever was asked for.
    Whole,
    /// All of it without its length.
    Unmeasured,
    /// As `Unmeasured`, with so many bytes more.
    Longer(usize),
    /// It says so many bytes fewer than there are, and gives no more.
    Shorter(usize),
    /// A part, but from so many bytes further on or back; and says so.
    Shifted(i64),
    /// A part that is said to be nowhere.
    Nowhere,
    /// A part that is said to be of a larger whole.
    Larger,
    Unsatisfiable,
    Status(u16),
    /// As `Status`, to be asked again after so many seconds.
    Later(u16, u64),
    /// No answer.
    Hangup,
    Garbage,
    /// Somewhere else on this host.
    Redirect,
    Loop,
}

/// How requests are answered.
pub(super) type Plan = dyn Fn(&Asked) -> Fault + Send + Sync;

#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) offset: usize,
    pub(super) authorization: Option<String>,
    /// How many requests there were before.
    pub(super) number: usize,
}

impl Asked {
    pub(super) fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) requests: Vec<Asked>,
    /// Of bodies of blobs.
    pub(super) served: usize,
    pub(super) open: usize,
    pub(super) most_open: usize,
}

pub(super) struct Stage {
    pub(super) image: ImageRef,
    pub(super) manifest: Digest,
    pub(super) layers: Vec<Vec<u8>>,
    pub(super) seen: Arc<Mutex<Seen>>,
    plan: Arc<Mutex<Arc<Plan>>>,
}

struct Shop {
    things: HashMap<String, Vec<u8>>,
    seen: Arc<Mutex<Seen>>,
    plan: Arc<Mutex<Arc<Plan>>>,
    /// Shown by who may come in.
    pass: Option<String>,
    /// Not all do.
    tells_digests: bool,
}

pub(super) fn sha(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Bytes that no packing makes smaller.
pub(super) fn noise(mut seed: u64, len: usize) -> Vec<u8> {
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(len).collect()
}

pub(super) fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{}", sha(bytes)), "size": bytes.len()})
}

impl Stage {
    pub(super) async fn new(sizes: &[usize]) -> Self {
        Self::with_pass(sizes, None).await
    }

    /// With a pass, who shows none is sent to `/token` for one.
    pub(super) async fn with_pass(sizes: &[usize], pass: Option<&str>) -> Self {
        Self::of((1..).zip(sizes).map(|(seed, size)| noise(seed, *size)).collect(), pass).await
    }

    pub(super) async fn of(layers: Vec<Vec<u8>>, pass: Option<&str>) -> Self {
        let diffs: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", sha(layer))).collect();
        let config = json!({"os": "linux", "architecture": ARCH,
            "rootfs": {"type": "layers", "diff_ids": diffs}})
        .to_string();
        let kind = "application/vnd.oci.image.layer.v1.tar";
        let described: Vec<_> = layers.iter().map(|layer| descriptor(kind, layer)).collect();
        let kind = "application/vnd.oci.image.config.v1+json";
        let config_of = descriptor(kind, config.as_bytes());
        let manifest = json!({"schemaVersion": 2, "config": config_of, "layers": described});
        let manifest = manifest.to_string().into_bytes();
        let digest = sha(&manifest);
        let mut things = HashMap::new();
        let mut put = |kind: &str, which: &str, bytes: &[u8]| {
            things.insert(format!("/v2/team/app/{kind}/{which}"), bytes.to_vec());
        };
        put("manifests", "1", &manifest);
        put("manifests", &format!("sha256:{digest}"), &manifest);
        put("blobs", &format!("sha256:{}", sha(config.as_bytes())), config.as_bytes());
        for layer in &layers {
            put("blobs", &format!("sha256:{}", sha(layer)), layer);
        }
        let plan: Arc<Plan> = Arc::new(|_| Fault::None);
        let (seen, plan) = (Arc::default(), Arc::new(Mutex::new(plan)));
        let tells_digests = pass.is_none();
        let pass = pass.map(str::to_owned);
        let shop =
            Shop { things, seen: Arc::clone(&seen), plan: Arc::clone(&plan), pass, tells_digests };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(shop)));
        let image = format!("{address}/team/app:1").parse().unwrap();
        Self { image, manifest: digest, layers, seen, plan }
    }

    pub(super) fn plan(&self, plan: impl Fn(&Asked) -> Fault + Send + Sync + 'static) {
        *self.plan.lock().unwrap() = Arc::new(plan);
    }

    pub(super) fn served(&self) -> usize {
        self.seen.lock().unwrap().served
    }

    pub(super) fn requests(&self) -> usize {
        self.seen.lock().unwrap().requests.len()
    }
}

async fn serve(listener: TcpListener, shop: Arc<Shop>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shop = Arc::clone(&shop);
        tokio::spawn(async move {
            let blob = {
                let mut seen = shop.seen.lock().unwrap();
                seen.open += 1;
                seen.most_open = seen.most_open.max(seen.open);
                Arc::clone(&shop)
            };
            drop(answer(stream, &shop).await);
            blob.seen.lock().unwrap().open -= 1;
        });
    }
}

/// One request of one connection.
async fn answer(mut stream: TcpStream, shop: &Shop) -> std::io::Result<()> {
    let mut head = vec![stream.read_u8().await?];
    if head == [0x16] {
        // A greeting of TLS.
        let odd = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        return stream.write_all(odd).await;
    }
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
        line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned())
    };
    let path = head.split(' ').nth(1).unwrap_or_default().trim_start_matches("/other").to_owned();
    let range = header("range");
    let offset = range.as_ref().and_then(|range| range[6..].trim_end_matches('-').parse().ok());
    let (asked, plan) = {
        let mut seen = shop.seen.lock().unwrap();
        let number = seen.requests.len();
        let authorization = header("authorization");
        let asked =
            Asked { path: path.clone(), offset: offset.unwrap_or(0), authorization, number };
        seen.requests.push(asked.clone());
        (asked, Arc::clone(&shop.plan.lock().unwrap()))
    };
    let say = |head: String| format!("HTTP/1.1 {head}\r\nConnection: close\r\n");
    if path.starts_with("/token") {
        let token = json!({"token": shop.pass}).to_string();
        let answer =
            say("200 OK".to_owned()) + &format!("Content-Length: {}\r\n\r\n{token}", token.len());
        return stream.write_all(answer.as_bytes()).await;
    }
    if let Some(pass) = &shop.pass
        && asked.authorization.as_deref() != Some(&format!("Bearer {pass}"))
    {
        let host = header("host").unwrap_or_default();
        let answer = say("401 Unauthorized".to_owned())
            + &format!(
                "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"s\"\r\n\
                Content-Length: 0\r\n\r\n"
            );
        return stream.write_all(answer.as_bytes()).await;
    }
    let Some(thing) = shop.things.get(&path) else {
        let said = r#"{"errors": [{"code": "NAME_UNKNOWN", "message": "no such thing"}]}"#;
        let answer = say("404 Not Found".to_owned())
            + &format!("Content-Length: {}\r\n\r\n{said}", said.len());
        return stream.write_all(answer.as_bytes()).await;
    };
    let fault = plan(&asked);
    let from = offset.filter(|offset| *offset < thing.len());
    let (len, mut body) = (thing.len(), thing[from.unwrap_or(0)..].to_vec());
    let mut status = match from {
        Some(from) => {
            format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{len}", len - 1)
        }
        None => "200 OK".to_owned(),
    };
    let mut length = Some(body.len());
    let mut stop = None;
    match fault {
        Fault::Cut(at) | Fault::Stall(at) => stop = Some(at.min(body.len())),
        Fault::Corrupt(at) => {
            let at = at % body.len().max(1);
            body[at] ^= 0x55;
        }
        Fault::Whole | Fault::Unmeasured | Fault::Longer(_) => {
            (status, body) = ("200 OK".to_owned(), thing.clone());
            length = Some(len).filter(|_| fault == Fault::Whole);
            if let Fault::Longer(by) = fault {
                body.resize(len + by, b' ');
            }
        }
        Fault::Shorter(by) => {
            body.truncate(body.len().saturating_sub(by));
            length = Some(body.len());
        }
        Fault::Shifted(by) if from.is_some() => {
            let shifted = i64::try_from(from.unwrap_or(0)).unwrap() + by;
            let shifted = usize::try_from(shifted.max(0)).unwrap().min(len - 1);
            status =
                format!("206 Partial Content\r\nContent-Range: bytes {shifted}-{}/{len}", len - 1);
            body = thing[shifted..].to_vec();
            length = Some(body.len());
        }
        Fault::Nowhere if from.is_some() => status = "206 Partial Content".to_owned(),
        Fault::Larger => {
            status = status.replace(&format!("/{len}"), &format!("/{}", len + 1));
        }
        Fault::Unsatisfiable if from.is_some() => {
            (status, body, length) = ("416 Range Not Satisfiable".to_owned(), vec![], Some(0));
        }
        Fault::Status(code) => (status, body, length) = (format!("{code} Odd"), vec![], Some(0)),
        Fault::Later(code, seconds) => {
            status = format!("{code} Later\r\nRetry-After: {seconds}");
            (body, length) = (vec![], Some(0));
        }
        Fault::Hangup => return Ok(()),
        Fault::Garbage => return stream.write_all(&noise(7, 300)).await,
        Fault::Redirect | Fault::Loop => {
            let to = if fault == Fault::Loop { "" } else { "/other" }.to_owned() + &path;
            // Whoever comes there is a request more, which may be sent on again.
            status = format!("307 Temporary Redirect\r\nLocation: {to}");
            (body, length) = (vec![], Some(0));
        }
        _ => {}
    }
    let mut answer = say(status);
    if path.contains("/manifests/") && shop.tells_digests {
        answer.push_str(&format!("Docker-Content-Digest: sha256:{}\r\n", sha(thing)));
    }
    if let Some(length) = length {
        answer.push_str(&format!("Content-Length: {length}\r\n"));
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.write_all(b"\r\n").await?;
    let end = stop.unwrap_or(body.len());
    for piece in body[..end].chunks(16 << 10) {
        stream.write_all(piece).await?;
        if asked.is_blob() {
            shop.seen.lock().unwrap().served += piece.len();
        }
    }
    if matches!(fault, Fault::Stall(_)) {
        // Until the other side has enough of it.
        drop(stream.read_u8().await);
    }
    stream.shutdown().await
}
