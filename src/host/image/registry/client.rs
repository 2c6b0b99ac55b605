//! One registry, one request at a time: where it is, what it wants to see, what it answers.
//!
//! What comes from here is not verified. Neither credentials nor the URLs that registries redirect to
//! end in a message.

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use tokio::sync::Mutex;

use super::challenge::{Challenge, Token};
use super::http::{DOCUMENT, Http, Part, Side, client};
use super::login::{self, Login};
use super::trouble::{LOGIN, Patience, Trouble};
use crate::host::files::blocking;
use crate::host::image::oci::MAX_DOCUMENT;
use crate::model::{Code, Digest, ImageRef, RegistrySettings};
use crate::ports::HostError;

const MAX_TOKEN: u64 = 256 << 10;
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

pub(super) struct Registry {
    http: Http,
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
        let http = Http { client: http, object: image.to_string(), side: Side::Registry };
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
                return Err(self.http.refused(WHAT, response).await);
            }
            let said = response.headers().get("docker-content-digest");
            let said = said.and_then(|said| said.to_str().ok()?.strip_prefix("sha256:"));
            let digest = said.and_then(|hex| hex.parse().ok());
            let bytes = self.http.whole(WHAT, response, MAX_DOCUMENT).await?;
            Ok(Said { bytes, digest })
        };
        let late = || {
            let late = self.http.error(WHAT, Code::Deadline);
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
        self.http.part(WHAT, response, offset).await
    }

    fn url(&self, kind: &str, which: &str) -> Result<Url, Trouble> {
        let url = format!("{}/v2/{}/{kind}/{which}", self.base, self.image.repository());
        Url::parse(&url).map_err(|error| {
            Trouble::lasting(self.http.error("dial the registry of", Code::Invalid).because(error))
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
            headers.iter().fold(self.http.client.get(url.clone()), add)
        };
        let shown = self.shown.lock().await.clone();
        let response = self.show(what, request(), shown.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let said = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = Challenge::of(said.filter_map(|said| said.to_str().ok()));
        let Some(challenge) = challenge else {
            return Err(self.http.refused(what, response).await);
        };
        let mut current = self.shown.lock().await;
        // Another request may have been given a new one in the meantime.
        if *current == shown {
            *current = Some(self.authorize(&challenge).await?);
        }
        let shown = current.clone();
        drop(current);
        self.show(what, request(), shown.as_ref()).await
    }

    async fn show(
        &self,
        what: &'static str,
        request: RequestBuilder,
        shown: Option<&HeaderValue>,
    ) -> Result<Response, Trouble> {
        let request = match shown {
            Some(shown) => request.header(AUTHORIZATION, shown),
            None => request,
        };
        self.http.send(what, request).await
    }

    async fn authorize(&self, challenge: &Challenge) -> Result<HeaderValue, Trouble> {
        const WHAT: &str = "log in for";
        let bearer = |token: String| format!("Bearer {token}");
        let text = match (challenge, &self.login) {
            (Challenge::Basic, Some(Login::Password { user, password })) => basic(user, password),
            (Challenge::Basic, Some(Login::Identity(token))) => bearer(token.clone()),
            (Challenge::Basic, None) => {
                let denied = self.http.error(WHAT, Code::Denied).because("it wants a password");
                return Err(Trouble::lasting(denied.hint(LOGIN)));
            }
            (Challenge::Bearer { realm, service, scope }, login) => {
                let asked = self.token(realm, service.as_deref(), scope.as_deref(), login.as_ref());
                bearer(tokio::time::timeout(DOCUMENT, asked).await.unwrap_or_else(|_| {
                    let late = self.http.error(WHAT, Code::Deadline);
                    Err(Trouble::passing(late.because("no token came within a minute")))
                })?)
            }
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| {
            let odd = self.http.error(WHAT, Code::Invalid);
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
            |why: &'static str| Trouble::lasting(self.http.error(WHAT, Code::Refused).because(why));
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
                self.http.client.post(url).header("content-type", kind).body(form)
            }
            login => {
                url.query_pairs_mut().extend_pairs(&fields);
                match login {
                    Some(Login::Password { user, password }) => {
                        self.http.client.get(url).basic_auth(user, Some(password))
                    }
                    _ => self.http.client.get(url),
                }
            }
        };
        let response = self.show(WHAT, request, None).await?;
        if response.status() != StatusCode::OK {
            return Err(self.http.refused(WHAT, response).await);
        }
        let bytes = self.http.whole(WHAT, response, MAX_TOKEN).await?;
        let token = serde_json::from_slice::<Token>(&bytes).ok().and_then(Token::text);
        token.ok_or_else(|| odd("what came is no token"))
    }
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {text}")
}
