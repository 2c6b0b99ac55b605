//! One connection to Firecracker's API: HTTP/1.1 over a Unix socket, a request after the other.
//!
//! Firecracker takes ten connections at a time and no body without a length, so one connection
//! serves a whole conversation and bodies are sent whole.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::types::Fault;
use crate::model::Code;
use crate::ports::HostError;

/// An answer takes a millisecond, the guest's start some hundred; on an emulated host, tenfold.
const LIMIT: Duration = Duration::from_secs(20);
/// The longest answer is a VM's whole configuration, some thousand bytes.
const MAX_ANSWER: usize = 256 << 10;
/// What of an answer that is no JSON goes into an error.
const MAX_WORDS: usize = 1000;
const JSON: &str = "application/json";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Put,
    Patch,
}

impl Method {
    /// For an error's operation.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Patch => "patch",
        }
    }
}

/// A request, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    /// JSON; empty in a `GET`, which must have none.
    pub(super) body: Bytes,
}

impl Call {
    pub(super) fn put(
        path: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Self::with_body(Method::Put, path, body)
    }

    pub(super) fn patch(
        path: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Self::with_body(Method::Patch, path, body)
    }

    fn with_body(
        method: Method,
        path: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        let body = serde_json::to_vec(body)?.into();
        Ok(Self { method, path: path.into(), body })
    }

    fn get(path: &str) -> Self {
        Self { method: Method::Get, path: path.to_owned(), body: Bytes::new() }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// Firecracker understood and refused; the words are its own.
    #[error("{message} (HTTP {status})")]
    Refused { status: u16, message: String },
    #[error("no answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("an answer of more than {MAX_ANSWER} bytes")]
    TooLong,
    #[error("the API's connection broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("an answer of another shape")]
    Shape(#[source] serde_json::Error),
    #[error("a request that is none")]
    Request(#[source] hyper::http::Error),
}

#[derive(Debug)]
pub(super) struct Client {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes; ends with the client.
    driver: JoinHandle<()>,
    limit: Duration,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    pub(super) async fn open(stream: UnixStream) -> Result<Self, ApiError> {
        let opened = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = opened.map_err(|error| ApiError::Broken(error.into()))?;
        // Whatever becomes of the connection, the request that waits for it is told.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, driver, limit: LIMIT })
    }

    /// The body of the answer, which is empty for most.
    pub(super) async fn call(&mut self, call: &Call) -> Result<Bytes, ApiError> {
        self.call_within(self.limit, call).await
    }

    /// For what takes longer the more memory a guest has.
    pub(super) async fn call_within(
        &mut self,
        limit: Duration,
        call: &Call,
    ) -> Result<Bytes, ApiError> {
        match timeout(limit, self.exchange(call)).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::Silent(limit)),
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ApiError> {
        let answer = self.call(&Call::get(path)).await?;
        serde_json::from_slice(&answer).map_err(ApiError::Shape)
    }

    async fn exchange(&mut self, call: &Call) -> Result<Bytes, ApiError> {
        let method = match call.method {
            Method::Get => hyper::Method::GET,
            Method::Put => hyper::Method::PUT,
            Method::Patch => hyper::Method::PATCH,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(call.path.as_str())
            .header(HOST, "localhost")
            .header(ACCEPT, JSON);
        if !call.body.is_empty() {
            request = request.header(CONTENT_TYPE, JSON);
        }
        let request = request.body(Full::new(call.body.clone())).map_err(ApiError::Request)?;
        let broken = |error: hyper::Error| ApiError::Broken(error.into());
        let answer = self.sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => ApiError::TooLong,
            false => ApiError::Broken(error),
        })?;
        let body = body.to_bytes();
        match status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(body),
            other => Err(ApiError::Refused { status: other.as_u16(), message: words_of(&body) }),
        }
    }
}

/// The API's own words. What its HTTP layer says is not even JSON, and taken as it is.
fn words_of(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Fault>(body) {
        Ok(fault) => fault.fault_message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    match text.trim() {
        "" => "refused without a word".to_owned(),
        words => words.chars().take(MAX_WORDS).collect(),
    }
}

/// Gives an error its operation and object.
pub(super) fn failed(
    operation: &'static str,
    what: &str,
    socket: &Path,
    error: ApiError,
) -> HostError {
    let code = match &error {
        ApiError::Silent(_) => Code::Deadline,
        _ => Code::Host,
    };
    HostError::new(code, operation, format!("{what} at {}", socket.display())).because(error)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
