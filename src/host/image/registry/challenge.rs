//! What a registry says that it wants to see of its callers. Pure.

use serde::Deserialize;

/// Of `WWW-Authenticate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// Somebody else hands out tokens.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The first that is understood, a token before a password.
    pub(super) fn of<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for header in headers {
            let (scheme, rest) =
                header.trim().split_once(' ').unwrap_or_else(|| (header.trim(), ""));
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            } else if scheme.eq_ignore_ascii_case("bearer") {
                let mut values = parameters(rest);
                let mut take = |name: &str| {
                    let at = values.iter().position(|(known, _)| known == name)?;
                    Some(values.swap_remove(at).1)
                };
                if let Some(realm) = take("realm") {
                    return Some(Self::Bearer {
                        realm,
                        service: take("service"),
                        scope: take("scope"),
                    });
                }
            }
        }
        basic
    }
}

/// `name="value",other=value`; a quoted value may have commas and `\"` in it.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = vec![];
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        let mut value = String::new();
        rest = match after.strip_prefix('"') {
            None => {
                let end = after.find(',').unwrap_or(after.len());
                value.push_str(after[..end].trim());
                &after[end..]
            }
            Some(quoted) => {
                let mut chars = quoted.chars();
                while let Some(c) = chars.next() {
                    match c {
                        '"' => break,
                        '\\' => value.extend(chars.next()),
                        c => value.push(c),
                    }
                }
                chars.as_str()
            }
        };
        found.push((name.trim().to_ascii_lowercase(), value));
        rest = rest.trim_start_matches([' ', ',']);
    }
    found
}

/// What a token's giver answers.
#[derive(Deserialize)]
pub(super) struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Token {
    pub(super) fn text(self) -> Option<String> {
        self.token.or(self.access_token).filter(|token| !token.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let (service, scope) = (service.map(str::to_owned), scope.map(str::to_owned));
        Some(Challenge::Bearer { realm: realm.to_owned(), service, scope })
    }

    #[test]
    fn challenges_are_read_in_every_form() {
        let of = |headers: &[&str]| Challenge::of(headers.iter().copied());
        let docker = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",\
                      scope=\"repository:a/b:pull,push\"";
        let (realm, service) = ("https://auth.docker.io/token", "registry.docker.io");
        assert_eq!(of(&[docker]), bearer(realm, Some(service), Some("repository:a/b:pull,push")));
        assert_eq!(
            of(&["Basic realm=\"x\"", "bearer Realm=y , service = z"]),
            bearer("y", Some("z"), None)
        );
        assert_eq!(of(&["BASIC"]), Some(Challenge::Basic));
        assert_eq!(of(&[r#"Bearer realm="a\"b""#]), bearer("a\"b", None, None));
        for odd in ["", "Negotiate", "Bearer", "Bearer service=x", "Bearer realm", "Bearer =\""] {
            assert_eq!(of(&[odd]), None, "{odd}");
        }
    }
}
