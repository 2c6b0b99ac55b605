//! A file that a URL names.
//!
//! There are no credentials: what needs some is no place for files that a digest decides.

use reqwest::header::{CONTENT_LENGTH, RANGE};
use reqwest::{StatusCode, Url};

use super::http::{DOCUMENT, Http, Part, Side, client};
use super::trouble::{Patience, Trouble};
use crate::host::files::blocking;
use crate::model::{Code, RegistrySettings};
use crate::ports::HostError;

const WHAT: &str = "download";

#[derive(Debug)]
pub(super) struct Web {
    http: Http,
    url: Url,
}

impl Web {
    /// Dials nothing yet. Without TLS only where the configuration says so.
    pub(super) async fn of(
        url: &str,
        settings: &RegistrySettings,
        patience: Patience,
    ) -> Result<Self, HostError> {
        let url = checked(url, settings)?;
        let (object, settings) = (shown(&url), settings.clone());
        let client = blocking("prepare a download", move || client(&settings, patience)).await?;
        Ok(Self { http: Http { client, object, side: Side::Server }, url })
    }

    /// As messages and records have it.
    pub(super) fn shown(&self) -> &str {
        &self.http.object
    }

    /// From this offset on, or from another: the answer says.
    pub(super) async fn part(&self, offset: u64) -> Result<Part, Trouble> {
        let mut request = self.http.client.get(self.url.clone());
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let response = self.http.send(WHAT, request).await?;
        self.http.part(WHAT, response, offset).await
    }

    /// How many bytes the server says that it is. Not all know how to say that alone.
    pub(super) async fn size(&self) -> Result<u64, Trouble> {
        let asked = async {
            let response = self.http.send(WHAT, self.http.client.head(self.url.clone())).await?;
            let said = response.headers().get(CONTENT_LENGTH);
            let said = said.and_then(|said| said.to_str().ok()?.parse().ok());
            if let (StatusCode::OK, Some(size)) = (response.status(), said) {
                return Ok(size);
            }
            match self.part(0).await? {
                Part::Body(body) => body.size.ok_or_else(|| {
                    let error = self.http.error(WHAT, Code::Refused);
                    Trouble::lasting(error.because("the server does not say how large it is"))
                }),
                Part::Unsatisfiable => Err(Trouble::passing(self.http.error(WHAT, Code::Host))),
            }
        };
        tokio::time::timeout(DOCUMENT, asked).await.unwrap_or_else(|_| Err(self.late()))
    }

    fn late(&self) -> Trouble {
        let late = self.http.error(WHAT, Code::Deadline);
        Trouble::passing(late.because("it did not come within a minute"))
    }
}

fn checked(text: &str, settings: &RegistrySettings) -> Result<Url, HostError> {
    let error = |code, object: &str| HostError::new(code, WHAT, object);
    let url = Url::parse(text).map_err(|why| error(Code::Invalid, "a URL").because(why))?;
    let object = shown(&url);
    if !url.username().is_empty() || url.password().is_some() {
        return Err(error(Code::Refused, &object)
            .because("there are credentials in the URL, which would be kept with it"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" => {
            let host = url.host_str().unwrap_or_default();
            let host = match url.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            };
            if settings.plain_http.contains(&host) {
                return Ok(url);
            }
            Err(error(Code::Refused, &object)
                .because("without TLS anybody on the way can tell what is fetched, and stop it")
                .hint(format!("if that does not matter, name {host} in [registries] plain_http")))
        }
        other => {
            Err(error(Code::Invalid, &object)
                .because(format!("{other:?} is neither https nor http")))
        }
    }
}

/// Without what may be a secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Refused by URLs that have no host, and so no credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<String, HostError> {
        let plain_http = vec!["127.0.0.1:8080".to_owned(), "depot".to_owned()];
        let settings = RegistrySettings { plain_http, ..RegistrySettings::default() };
        checked(text, &settings).map(|url| shown(&url))
    }

    #[test]
    fn without_tls_only_where_the_configuration_says_so() {
        for (good, shown) in [
            ("https://example.org/a.tar.zst?token=1#x", "https://example.org/a.tar.zst"),
            ("http://127.0.0.1:8080/a", "http://127.0.0.1:8080/a"),
            ("http://depot/a", "http://depot/a"),
            ("http://DEPOT:80/a", "http://depot/a"),
        ] {
            assert_eq!(check(good).unwrap(), shown);
        }
        for (bad, code, why) in [
            ("http://127.0.0.1/a", Code::Refused, "without TLS"),
            ("http://depot:8080/a", Code::Refused, "without TLS"),
            ("ftp://depot/a", Code::Invalid, "neither https nor http"),
            ("file:///etc/passwd", Code::Invalid, "neither https nor http"),
            ("https://", Code::Invalid, "empty host"),
            ("https://me:secret@depot/a", Code::Refused, "credentials in the URL"),
        ] {
            let error = check(bad).unwrap_err();
            let said = crate::model::chain(&error);
            assert!(error.code == code && said.contains(why), "{bad}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
