//! One server, one request at a time. The only file that knows how HTTP goes wrong.
//!
//! What comes from here is not verified. Everything that is read as a whole has a limit, and nothing
//! waits for ever. No URL ends in a message: it may have a secret in it.

use std::sync::Once;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use super::trouble::{Patience, Trouble, of_status};
use crate::host::clock::SystemClock;
use crate::model::{Code, RegistrySettings, chain};
use crate::ports::{Clock, HostError};

const CONNECT: Duration = Duration::from_secs(10);
/// For a document as a whole.
pub(super) const DOCUMENT: Duration = Duration::from_secs(60);
const MAX_REFUSAL: u64 = 16 << 10;
const MAX_REDIRECTS: usize = 8;

/// Who is asked, in messages and hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Registry,
    Server,
}

#[derive(Clone, Debug)]
pub(super) struct Http {
    pub(super) client: Client,
    /// What is asked for, in messages.
    pub(super) object: String,
    pub(super) side: Side,
}

/// Bytes from an offset on, which is not always the one that was asked for.
pub(super) struct Body {
    pub(super) offset: u64,
    /// Of the blob as a whole, if that was said.
    pub(super) size: Option<u64>,
    response: Response,
}

impl Body {
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        self.response.chunk().await.map_err(|error| chain(&error.without_url()))
    }
}

/// What is answered to a request for a part of a blob.
pub(super) enum Part {
    Body(Body),
    /// That part cannot be had; the whole may.
    Unsatisfiable,
}

impl Http {
    pub(super) async fn send(
        &self,
        what: &'static str,
        request: RequestBuilder,
    ) -> Result<Response, Trouble> {
        request.send().await.map_err(|error| self.broke(what, error))
    }

    /// What is answered to a request for what comes from this offset on.
    pub(super) async fn part(
        &self,
        what: &'static str,
        response: Response,
        offset: u64,
    ) -> Result<Part, Trouble> {
        match response.status() {
            StatusCode::OK => {
                let size = response.content_length();
                Ok(Part::Body(Body { offset: 0, size, response }))
            }
            StatusCode::PARTIAL_CONTENT if offset > 0 => match content_range(response.headers()) {
                Some((from, size)) if from <= offset => {
                    Ok(Part::Body(Body { offset: from, size, response }))
                }
                _ => Ok(Part::Unsatisfiable),
            },
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => Ok(Part::Unsatisfiable),
            _ => Err(self.refused(what, response).await),
        }
    }

    /// All of a body that is no larger than it may be.
    pub(super) async fn whole(
        &self,
        what: &'static str,
        mut response: Response,
        limit: u64,
    ) -> Result<Vec<u8>, Trouble> {
        let mut bytes = vec![];
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broke(what, error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                let why = format!("what came is larger than {limit} bytes");
                return Err(Trouble::lasting(self.error(what, Code::Refused).because(why)));
            }
        }
        Ok(bytes)
    }

    pub(super) async fn refused(&self, what: &'static str, response: Response) -> Trouble {
        let status = response.status();
        let wait = retry_after(response.headers());
        let body = tokio::time::timeout(CONNECT, self.whole(what, response, MAX_REFUSAL)).await;
        let said = body.ok().and_then(Result::ok).and_then(|body| message(&body));
        let answers = match self.side {
            Side::Registry => "the registry answers",
            Side::Server => "the server answers",
        };
        let why = match said {
            Some(said) => format!("{answers} {status}: {said}"),
            None => format!("{answers} {status}"),
        };
        of_status(status.as_u16(), self.side, |code| self.error(what, code).because(why), wait)
    }

    fn broke(&self, what: &'static str, error: reqwest::Error) -> Trouble {
        let redirected = error.is_redirect();
        let error = error.without_url();
        let why = chain(&error);
        // Between what was tried and what was in its way nothing is worth a word.
        let shown = if error.is_connect() { root(&error) } else { why.clone() };
        let named = |code| self.error(what, code).because(shown.clone());
        if redirected {
            return Trouble::lasting(named(Code::Refused));
        }
        if why.contains("InvalidContentType") {
            return Trouble::lasting(named(Code::Denied).hint(PLAIN));
        }
        if why.contains("certificate") {
            return Trouble::lasting(named(Code::Denied).hint(AUTHORITY));
        }
        Trouble::passing(named(Code::Host))
    }

    pub(super) fn error(&self, what: &'static str, code: Code) -> HostError {
        HostError::new(code, what, self.object.clone())
    }
}

fn root(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

const PLAIN: &str = "if it speaks plain HTTP, name it in [registries] plain_http";
const AUTHORITY: &str = "name the registry's authority in [registries] certificates";

/// Blocking: reads certificates.
pub(super) fn client(settings: &RegistrySettings, patience: Patience) -> Result<Client, HostError> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // One that is there already does as well.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
    let mut certificates = vec![];
    for path in &settings.certificates {
        let named = || path.display().to_string();
        let text = std::fs::read(path)
            .map_err(|error| HostError::io("read certificates", named(), error))?;
        let invalid =
            |why: String| HostError::new(Code::Invalid, "read certificates", named()).because(why);
        let found = Certificate::from_pem_bundle(&text)
            .map_err(|error| invalid(chain(&error.without_url())))?;
        if found.is_empty() {
            return Err(invalid("there is none in it".to_owned()));
        }
        certificates.extend(found);
    }
    let redirects = Policy::custom(|attempt| {
        let began = attempt.previous().first().map(Url::scheme);
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("it redirects again and again")
        } else if began == Some("https") && attempt.url().scheme() != "https" {
            attempt.error("it redirects to a place without TLS")
        } else {
            attempt.follow()
        }
    });
    let builder = Client::builder()
        .user_agent(concat!("banger/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .read_timeout(patience.silence)
        .redirect(redirects)
        .tls_certs_merge(certificates);
    builder.build().map_err(|error| {
        let why = chain(&error.without_url());
        HostError::new(Code::Host, "set up", "TLS").because(why)
    })
}

/// `bytes 100-199/200`: where it begins, and the size of the whole if that is said.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes ")?;
    let (range, size) = text.split_once('/')?;
    let (from, to) = range.split_once('-')?;
    let (from, to): (u64, u64) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
    let size = match size.trim() {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    (from <= to && size.is_none_or(|size| to < size)).then_some((from, size))
}

/// Seconds, or a time.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let then = u64::try_from(then.as_millisecond()).unwrap_or(0);
    Some(Duration::from_millis(then.saturating_sub(SystemClock.unix_ms())))
}

/// Of the errors in a refusal, the first.
fn message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        errors: Vec<Said>,
    }
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Said {
        code: String,
        message: String,
    }
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    let first = refusal.errors.into_iter().next()?;
    let text = if first.message.is_empty() { first.code } else { first.message };
    let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: reqwest::header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, reqwest::header::HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn ranges_are_believed_if_they_make_sense() {
        let of = |text| content_range(&headers(CONTENT_RANGE, text));
        assert_eq!(of("bytes 100-199/200"), Some((100, Some(200))));
        assert_eq!(of("bytes 0-9/*"), Some((0, None)));
        for odd in ["", "bytes */200", "bytes 9-3/20", "bytes 0-20/20", "items 0-1/2", "bytes 1/2"]
        {
            assert_eq!(of(odd), None, "{odd}");
        }
        assert_eq!(content_range(&HeaderMap::new()), None);
    }

    #[test]
    fn a_time_to_come_back_is_understood_in_both_forms() {
        let of = |text| retry_after(&headers(RETRY_AFTER, text));
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(of("Mon, 21 Oct 2115 07:28:00 GMT").unwrap() > Duration::from_secs(1 << 20));
        assert_eq!(of("soon"), None);
    }

    #[test]
    fn a_refusal_is_told_in_the_registrys_words() {
        let said =
            br#"{"errors": [{"code": "DENIED", "message": "no\u001b[31m\n", "detail": {}}]}"#;
        assert_eq!(message(said).as_deref(), Some("no[31m"));
        assert_eq!(message(br#"{"errors": [{"code": "DENIED"}]}"#).as_deref(), Some("DENIED"));
        for odd in [&b"<html>"[..], b"{}", br#"{"errors": []}"#] {
            assert_eq!(message(odd), None);
        }
    }
}
