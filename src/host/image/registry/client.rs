//! One registry, one request at a time: where it is, what it wants to see, what it answers. The only
//! file that speaks HTTP to registries.
//!
//! What comes from here is not verified. Everything that is read as a whole has a limit, and nothing
//! waits for ever. Neither credentials nor the URLs that registries redirect to end in a message.

use std::sync::Once;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::challenge::{Challenge, Token};
use super::login::{self, Login};
use super::trouble::{LOGIN, Patience, Trouble, of_status};
use crate::host::clock::SystemClock;
use crate::host::files::blocking;
use crate::host::image::oci::MAX_DOCUMENT;
use crate::model::{Code, Digest, ImageRef, RegistrySettings, chain};
use crate::ports::{Clock, HostError};

const CONNECT: Duration = Duration::from_secs(10);
/// For a document as a whole.
const DOCUMENT: Duration = Duration::from_secs(60);
const MAX_TOKEN: u64 = 256 << 10;
const MAX_REFUSAL: u64 = 16 << 10;
const MAX_REDIRECTS: usize = 8;
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

pub(super) struct Registry {
    http: Client,
    base: String,
    image: ImageRef,
    login: Option<Login>,
    /// What it was last content with.
    shown: Mutex<Option<HeaderValue>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("image", &self.image).finish_non_exhaustive()
    }
}

/// A document as it came, and its digest as the registry says it.
pub(super) struct Said {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Option<Digest>,
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

impl Registry {
    /// Dials nothing yet, but asks the files and helpers that keep credentials.
    pub(super) async fn of(
        image: &ImageRef,
        settings: &RegistrySettings,
        patience: Patience,
    ) -> Result<Self, HostError> {
        let plain = settings.plain_http.iter().any(|known| known == image.registry());
        let host = if image.is_docker_hub() { "registry-1.docker.io" } else { image.registry() };
        let base = format!("{}://{host}", if plain { "http" } else { "https" });
        let (of, settings) = (image.clone(), settings.clone());
        let (login, http) = blocking("prepare a pull", move || {
            let login = login::find(&of, settings.auth_file.as_deref())?;
            Ok((login, client(&settings, patience)?))
        })
        .await?;
        Ok(Self { http, base, image: image.clone(), login, shown: Mutex::default() })
    }

    /// By digest, or by the tag of the reference.
    pub(super) async fn document(&self, digest: Option<Digest>) -> Result<Said, Trouble> {
        const WHAT: &str = "pull manifest of";
        let which = match (digest, self.image.tag()) {
            (Some(digest), _) => format!("sha256:{digest}"),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let url = self.url("manifests", &which)?;
        let asked = async {
            let response = self.get(WHAT, &url, &[(ACCEPT, ACCEPTED.to_owned())]).await?;
            if response.status() != StatusCode::OK {
                return Err(self.refused(WHAT, response).await);
            }
            let said = response.headers().get("docker-content-digest");
            let said = said.and_then(|said| said.to_str().ok()?.strip_prefix("sha256:"));
            let digest = said.and_then(|hex| hex.parse().ok());
            let bytes = self.whole(WHAT, response, MAX_DOCUMENT).await?;
            Ok(Said { bytes, digest })
        };
        let late = || {
            let late = self.error(WHAT, Code::Deadline);
            Err(Trouble::passing(late.because("it did not come within a minute")))
        };
        tokio::time::timeout(DOCUMENT, asked).await.unwrap_or_else(|_| late())
    }

    /// From this offset on, or from another: the answer says.
    pub(super) async fn blob(&self, digest: Digest, offset: u64) -> Result<Part, Trouble> {
        const WHAT: &str = "pull a layer of";
        let url = self.url("blobs", &format!("sha256:{digest}"))?;
        let range = (RANGE, format!("bytes={offset}-"));
        let headers = if offset > 0 { vec![range] } else { vec![] };
        let response = self.get(WHAT, &url, &headers).await?;
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
            _ => Err(self.refused(WHAT, response).await),
        }
    }

    fn url(&self, kind: &str, which: &str) -> Result<Url, Trouble> {
        let url = format!("{}/v2/{}/{kind}/{which}", self.base, self.image.repository());
        Url::parse(&url).map_err(|error| {
            Trouble::lasting(self.error("dial the registry of", Code::Invalid).because(error))
        })
    }

    /// Shows what the registry wants to see, and what that is it is asked once.
    async fn get(
        &self,
        what: &'static str,
        url: &Url,
        headers: &[(reqwest::header::HeaderName, String)],
    ) -> Result<Response, Trouble> {
        let request = || {
            let add = |request: RequestBuilder, (name, value): &(_, String)| {
                request.header(name, value.as_str())
            };
            headers.iter().fold(self.http.get(url.clone()), add)
        };
        let shown = self.shown.lock().await.clone();
        let response = self.send(what, request(), shown.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let said = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = Challenge::of(said.filter_map(|said| said.to_str().ok()));
        let Some(challenge) = challenge else { return Err(self.refused(what, response).await) };
        let mut current = self.shown.lock().await;
        // Another request may have been given a new one in the meantime.
        if *current == shown {
            *current = Some(self.authorize(&challenge).await?);
        }
        let shown = current.clone();
        drop(current);
        self.send(what, request(), shown.as_ref()).await
    }

    async fn send(
        &self,
        what: &'static str,
        request: RequestBuilder,
        shown: Option<&HeaderValue>,
    ) -> Result<Response, Trouble> {
        let request = match shown {
            Some(shown) => request.header(AUTHORIZATION, shown),
            None => request,
        };
        request.send().await.map_err(|error| self.broke(what, error))
    }

    async fn authorize(&self, challenge: &Challenge) -> Result<HeaderValue, Trouble> {
        const WHAT: &str = "log in for";
        let bearer = |token: String| format!("Bearer {token}");
        let text = match (challenge, &self.login) {
            (Challenge::Basic, Some(Login::Password { user, password })) => basic(user, password),
            (Challenge::Basic, Some(Login::Identity(token))) => bearer(token.clone()),
            (Challenge::Basic, None) => {
                let denied = self.error(WHAT, Code::Denied).because("it wants a password");
                return Err(Trouble::lasting(denied.hint(LOGIN)));
            }
            (Challenge::Bearer { realm, service, scope }, login) => {
                let asked = self.token(realm, service.as_deref(), scope.as_deref(), login.as_ref());
                bearer(tokio::time::timeout(DOCUMENT, asked).await.unwrap_or_else(|_| {
                    let late = self.error(WHAT, Code::Deadline);
                    Err(Trouble::passing(late.because("no token came within a minute")))
                })?)
            }
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| {
            let odd = self.error(WHAT, Code::Invalid);
            Trouble::lasting(odd.because("credentials or token have characters that none have"))
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        login: Option<&Login>,
    ) -> Result<String, Trouble> {
        const WHAT: &str = "get a token for";
        let odd =
            |why: &'static str| Trouble::lasting(self.error(WHAT, Code::Refused).because(why));
        let mut url =
            Url::parse(realm).map_err(|_| odd("the registry names a place that is none"))?;
        if url.scheme() != "https" && self.base.starts_with("https:") {
            return Err(odd("the registry wants credentials sent without TLS"));
        }
        let usual = format!("repository:{}:pull", self.image.repository());
        let mut fields = vec![("scope", scope.unwrap_or(&usual))];
        fields.extend(service.map(|service| ("service", service)));
        let request = match login {
            Some(Login::Identity(token)) => {
                fields.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "banger"),
                    ("refresh_token", token),
                ]);
                let mut form = url.clone();
                form.query_pairs_mut().clear().extend_pairs(&fields);
                let form = form.query().unwrap_or_default().to_owned();
                let kind = "application/x-www-form-urlencoded";
                self.http.post(url).header("content-type", kind).body(form)
            }
            login => {
                url.query_pairs_mut().extend_pairs(&fields);
                match login {
                    Some(Login::Password { user, password }) => {
                        self.http.get(url).basic_auth(user, Some(password))
                    }
                    _ => self.http.get(url),
                }
            }
        };
        let response = self.send(WHAT, request, None).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(WHAT, response).await);
        }
        let bytes = self.whole(WHAT, response, MAX_TOKEN).await?;
        let token = serde_json::from_slice::<Token>(&bytes).ok().and_then(Token::text);
        token.ok_or_else(|| odd("what came is no token"))
    }

    /// All of a body that is no larger than it may be.
    async fn whole(
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

    async fn refused(&self, what: &'static str, response: Response) -> Trouble {
        let status = response.status();
        let wait = retry_after(response.headers());
        let body = tokio::time::timeout(CONNECT, self.whole(what, response, MAX_REFUSAL)).await;
        let said = body.ok().and_then(Result::ok).and_then(|body| message(&body));
        let why = match said {
            Some(said) => format!("the registry answers {status}: {said}"),
            None => format!("the registry answers {status}"),
        };
        of_status(status.as_u16(), |code| self.error(what, code).because(why), wait)
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

    fn error(&self, what: &'static str, code: Code) -> HostError {
        HostError::new(code, what, self.image.to_string())
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
fn client(settings: &RegistrySettings, patience: Patience) -> Result<Client, HostError> {
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

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {text}")
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
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
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
