//! Against an API that each test plays by hand, byte by byte, on a Unix socket.

use std::future::Future;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;
use crate::model::chain;

fn put() -> Call {
    Call::put("/entropy", &super::super::types::Entropy {}).unwrap()
}

/// Everything up to the end of a request with a body of that many bytes.
async fn request(stream: &mut UnixStream, body: usize) -> String {
    let mut heard = vec![];
    loop {
        let text = String::from_utf8_lossy(&heard).into_owned();
        if text.split_once("\r\n\r\n").is_some_and(|(_, rest)| rest.len() == body) {
            return text;
        }
        let mut bytes = [0; 512];
        let length = stream.read(&mut bytes).await.unwrap();
        assert_ne!(length, 0, "the client left after {text:?}");
        heard.extend_from_slice(&bytes[..length]);
    }
}

async fn answer(stream: &mut UnixStream, status: &str, body: &str) {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// Runs a client against a server that is written in the test.
async fn both<T, F, G>(client: impl FnOnce(Client) -> F, server: impl FnOnce(UnixStream) -> G) -> T
where
    F: Future<Output = T>,
    G: Future<Output = ()>,
{
    let (here, there) = UnixStream::pair().unwrap();
    let mut api = Client::open(here).await.unwrap();
    api.limit = Duration::from_secs(60);
    tokio::join!(client(api), server(there)).0
}

/// What one answer makes of a request.
async fn answered(status: &str, body: &str) -> Result<Bytes, ApiError> {
    both(
        async |mut api| api.call(&put()).await,
        async |mut stream| {
            request(&mut stream, 2).await;
            answer(&mut stream, status, body).await;
        },
    )
    .await
}

#[tokio::test]
async fn requests_share_a_connection_and_name_their_length() {
    both(
        async |mut api| {
            assert!(api.call(&put()).await.unwrap().is_empty());
            let version: serde_json::Value = api.get("/version").await.unwrap();
            assert_eq!(version["firecracker_version"], "1.2.3");
        },
        async |mut stream| {
            let first = request(&mut stream, 2).await.to_lowercase();
            assert!(first.starts_with("put /entropy http/1.1\r\n"), "{first}");
            assert!(first.contains("content-length: 2\r\n") && first.ends_with("{}"), "{first}");
            assert!(!first.contains("transfer-encoding"), "{first}");
            stream.write_all(b"HTTP/1.1 204 \r\n\r\n").await.unwrap();
            let second = request(&mut stream, 0).await.to_lowercase();
            assert!(second.starts_with("get /version"), "{second}");
            assert!(!second.contains("content-type"), "{second}");
            answer(&mut stream, "200 OK", r#"{"firecracker_version":"1.2.3"}"#).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_refusal_tells_the_faults_own_words() {
    let error =
        answered("400 Bad Request", r#"{"fault_message":"no such drive"}"#).await.unwrap_err();
    assert!(matches!(&error, ApiError::Refused { status: 400, .. }), "{error:?}");
    assert_eq!(error.to_string(), "no such drive (HTTP 400)");
    let error = failed("put", "/drives/d0", Path::new("/run/x/fc.sock"), error);
    assert_eq!(chain(&error), "put /drives/d0 at /run/x/fc.sock: no such drive (HTTP 400)");
}

#[tokio::test]
async fn what_the_http_layer_says_is_taken_as_it_is() {
    let body =
        "{ \"error\": \"Invalid request.\nAll previous unanswered requests will be dropped.\" }";
    let error = answered("400 Bad Request", body).await.unwrap_err().to_string();
    assert!(error.contains("Invalid request."), "{error}");
    let error = answered("500 Internal Server Error", "").await.unwrap_err().to_string();
    assert_eq!(error, "refused without a word (HTTP 500)");
    let error = answered("503 Service Unavailable", "  busy ").await.unwrap_err().to_string();
    assert_eq!(error, "busy (HTTP 503)");
    let long = "x".repeat(5000);
    let error = answered("400 Bad Request", &long).await.unwrap_err().to_string();
    assert!(error.len() < 1100, "{} bytes", error.len());
}

#[tokio::test]
async fn answers_are_bounded_in_length_and_time() {
    let error = answered("200 OK", &"x".repeat(MAX_ANSWER + 1)).await.unwrap_err();
    assert!(matches!(error, ApiError::TooLong), "{error:?}");
    let error = both(
        async |mut api| {
            api.limit = Duration::from_millis(20);
            api.call(&put()).await.unwrap_err()
        },
        async |mut stream| drop(request(&mut stream, 2).await),
    )
    .await;
    // The server may have gone by then; it never answered.
    assert!(matches!(error, ApiError::Silent(_) | ApiError::Broken(_)), "{error:?}");
}

#[tokio::test]
async fn silence_is_told_as_such() {
    let (here, _there) = UnixStream::pair().unwrap();
    let mut api = Client::open(here).await.unwrap();
    api.limit = Duration::from_millis(20);
    let error = api.call(&put()).await.unwrap_err();
    assert!(matches!(error, ApiError::Silent(_)), "{error:?}");
    assert_eq!(failed("put", "/x", Path::new("/s"), error).code, Code::Deadline);
}

#[tokio::test]
async fn garbage_and_a_connection_that_ends_are_errors() {
    for garbage in ["SSH-2.0-nonsense\r\n\r\n", ""] {
        let error = both(
            async |mut api| api.call(&put()).await.unwrap_err(),
            async |mut stream| {
                request(&mut stream, 2).await;
                stream.write_all(garbage.as_bytes()).await.unwrap();
            },
        )
        .await;
        assert!(matches!(error, ApiError::Broken(_)), "{garbage:?}: {error:?}");
    }
    let error = both(
        async |mut api| api.get::<Fault>("/").await.unwrap_err(),
        async |mut stream| {
            request(&mut stream, 0).await;
            answer(&mut stream, "200 OK", "[]").await;
        },
    )
    .await;
    assert!(matches!(error, ApiError::Shape(_)), "{error:?}");
}

#[tokio::test]
async fn a_socket_that_appears_late_is_waited_for() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("fc.sock");
    // Begun before the socket is there; at first there is one that nobody listens on.
    let connecting = tokio::spawn({
        let socket = socket.clone();
        async move { crate::host::vmm::socket::connect_when_there(&socket).await }
    });
    tokio::task::yield_now().await;
    drop(UnixListener::bind(&socket).unwrap());
    tokio::task::yield_now().await;
    std::fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let (mut there, _) = listener.accept().await.unwrap();
    let mut api = Client::open(connecting.await.unwrap().unwrap()).await.unwrap();
    let serve = async {
        request(&mut there, 2).await;
        answer(&mut there, "204 No Content", "").await;
    };
    let (call, ()) = (put(), ());
    let (called, ()) = tokio::join!(api.call(&call), serve);
    called.unwrap();
}
