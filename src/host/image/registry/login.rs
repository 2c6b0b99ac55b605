//! Credentials, from where Podman and Docker keep them: their files and their helpers. Blocking.
//!
//! The daemon is its owner's own user, so these are the owner's own files. Read anew at every pull;
//! what is found is never stored and never in a log.

use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::model::{Code, ImageRef};
use crate::ports::HostError;

/// Of a credentials file or a helper's answer.
const MAX_BYTES: u64 = 1 << 20;
const HELPER_LIMIT: Duration = Duration::from_secs(30);
const HELPER_PAUSE: Duration = Duration::from_millis(10);
/// As Docker's files and helpers call its registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    Password {
        user: String,
        password: String,
    },
    /// Exchanged for a token at every pull.
    Identity(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Of the one file that was configured, else of the first that knows the registry. To most
/// registries none is needed.
pub(super) fn find(
    image: &ImageRef,
    configured: Option<&Path>,
) -> Result<Option<Login>, HostError> {
    if let Some(path) = configured {
        return of_file(path, image, true);
    }
    // As a service the daemon may have been given another home than its user has.
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    let home = user.map(|user| user.dir);
    for path in places(|name| std::env::var_os(name).map(PathBuf::from), home) {
        if let Some(login) = of_file(&path, image, false)? {
            return Ok(Some(login));
        }
    }
    Ok(None)
}

/// Where Podman looks, in its order, then Docker.
fn places(var: impl Fn(&str) -> Option<PathBuf>, home: Option<PathBuf>) -> Vec<PathBuf> {
    let var = |name| var(name).filter(|path| path.is_absolute());
    let homes: Vec<_> = var("HOME").into_iter().chain(home).collect();
    let below_homes = |path: &'static str| homes.iter().map(move |home| home.join(path));
    let uid = nix::unistd::getuid();
    let run = var("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{uid}").into());
    let podman = var("XDG_CONFIG_HOME").into_iter().chain(below_homes(".config"));
    let docker = var("DOCKER_CONFIG").into_iter().chain(below_homes(".docker"));
    let mut places: Vec<_> = var("REGISTRY_AUTH_FILE").into_iter().collect();
    places.push(run.join("containers/auth.json"));
    places.extend(podman.map(|dir| dir.join("containers/auth.json")));
    places.extend(docker.map(|dir| dir.join("config.json")));
    places
}

fn of_file(path: &Path, image: &ImageRef, must_be: bool) -> Result<Option<Login>, HostError> {
    let named = || path.display().to_string();
    let mut text = vec![];
    let opened = std::fs::File::open(path);
    let read = opened.and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
    match read {
        // A place that cannot be looked into, as another user's, has nothing for us.
        Err(_) if !must_be => return Ok(None),
        Err(error) => return Err(HostError::io("read credentials", named(), error)),
        Ok(_) => {}
    }
    let file: AuthFile = serde_json::from_slice(&text).map_err(|error| {
        // Its text may be in the message of the error.
        let place = format!("it is no JSON of theirs (line {})", error.line());
        HostError::new(Code::Invalid, "read credentials", named()).because(place)
    })?;
    file.login(image).map_err(|error| error.hint(format!("the helper is named in {}", named())))
}

impl AuthFile {
    fn login(&self, image: &ImageRef) -> Result<Option<Login>, HostError> {
        let keys = keys(image);
        let helper = keys.iter().find_map(|key| named(&self.cred_helpers, key));
        let server = if image.is_docker_hub() { DOCKER_HUB } else { image.registry() };
        if let Some(helper) = helper {
            return ask(helper, server);
        }
        if !self.creds_store.is_empty()
            && let Some(login) = ask(&self.creds_store, server)?
        {
            return Ok(Some(login));
        }
        let entry = keys.iter().find_map(|key| named(&self.auths, key));
        Ok(entry.and_then(Entry::login))
    }
}

impl Entry {
    fn login(&self) -> Option<Login> {
        if !self.identitytoken.is_empty() {
            return Some(Login::Identity(self.identitytoken.clone()));
        }
        if !self.username.is_empty() {
            let (user, password) = (self.username.clone(), self.password.clone());
            return Some(Login::Password { user, password });
        }
        let text = String::from_utf8(STANDARD.decode(self.auth.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        let password = password.trim_end_matches('\0').to_owned();
        (!user.is_empty()).then(|| Login::Password { user: user.to_owned(), password })
    }
}

/// The most particular first: `quay.io/team/app`, `quay.io/team`, `quay.io`.
fn keys(image: &ImageRef) -> Vec<String> {
    let mut key = format!("{}/{}", image.registry(), image.repository());
    let mut keys = vec![key.clone()];
    while let Some((shorter, _)) = key.rsplit_once('/') {
        key = shorter.to_owned();
        keys.push(key.clone());
    }
    if image.is_docker_hub() {
        keys.push("index.docker.io".to_owned());
    }
    keys
}

/// Keys may be URLs, as Docker has them.
fn named<'a, T>(map: &'a HashMap<String, T>, wanted: &str) -> Option<&'a T> {
    map.get(wanted).or_else(|| {
        let bare = |key: &str| {
            let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"))?;
            let key = key.trim_end_matches('/');
            let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
            Some(key.to_owned())
        };
        map.iter().find(|(key, _)| bare(key).as_deref() == Some(wanted)).map(|(_, value)| value)
    })
}

/// None: it has no credentials for the server.
fn ask(helper: &str, server: &str) -> Result<Option<Login>, HostError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let program = format!("docker-credential-{helper}");
    let failed = |error| HostError::io("ask for credentials", program.clone(), error);
    if !helper.chars().all(plain) {
        return Err(HostError::new(Code::Invalid, "ask for credentials", program)
            .because("that is no name of a helper"));
    }
    let (code, said) = run(&program, server).map_err(failed)?;
    if code != Some(0) {
        let said = String::from_utf8_lossy(&said);
        let said = said.trim();
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let why = match code {
            None => format!("it gave no answer within {HELPER_LIMIT:?}"),
            Some(code) => format!("it ended with {code}: {}", said.lines().next().unwrap_or("")),
        };
        return Err(HostError::new(Code::Denied, "ask for credentials", program).because(why));
    }
    let answer: Answer = serde_json::from_slice(&said).map_err(|_| {
        HostError::new(Code::Invalid, "ask for credentials", program.clone())
            .because("its answer is none of a credential helper")
    })?;
    let Answer { username: user, secret } = answer;
    Ok(Some(match user.as_str() {
        "<token>" => Login::Identity(secret),
        _ => Login::Password { user, password: secret },
    }))
}

/// Its exit status, if it ended in time, and what it said.
#[allow(clippy::disallowed_methods, reason = "a helper is a program that the owner chose")]
fn run(program: &str, server: &str) -> std::io::Result<(Option<i32>, Vec<u8>)> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        drop(input.write_all(server.as_bytes())); // one that needs no name may have closed it
    }
    let output = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut said = vec![];
        let read = output.map(|output| output.take(MAX_BYTES).read_to_end(&mut said));
        drop(read);
        said
    });
    let until = Instant::now() + HELPER_LIMIT;
    let code = loop {
        match child.try_wait()? {
            Some(status) => break Some(status.code().unwrap_or(-1)),
            None if Instant::now() >= until => {
                child.kill()?;
                child.wait()?;
                return Ok((None, vec![])); // its own children may have the pipe still
            }
            None => std::thread::sleep(HELPER_PAUSE),
        }
    };
    Ok((code, reader.join().unwrap_or_default()))
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
