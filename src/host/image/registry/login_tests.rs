//! Files as Docker and Podman write them, and a helper.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn image(text: &str) -> ImageRef {
    text.parse().unwrap()
}

fn found(file: &str, of: &str) -> Option<Login> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    fs::write(&path, file).unwrap();
    find(&image(of), Some(&path)).unwrap()
}

fn password(user: &str, password: &str) -> Option<Login> {
    Some(Login::Password { user: user.to_owned(), password: password.to_owned() })
}

#[test]
fn the_most_particular_entry_counts() {
    let file = r#"{"auths": {
        "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
        "quay.io": {"auth": "YWxsOnB3OndpdGg6Y29sb25z"},
        "quay.io/team": {"username": "team", "password": "secret"},
        "quay.io/team/app": {"identitytoken": "it"},
        "10.0.0.1:5000": {"auth": "bm90IGJhc2U2NA"},
        "odd.io": {}
    }, "HttpHeaders": {"x": "y"}}"#;
    assert_eq!(found(file, "alpine"), password("hub", "pw"));
    assert_eq!(found(file, "quay.io/other/x"), password("all", "pw:with:colons"));
    assert_eq!(found(file, "quay.io/team/x"), password("team", "secret"));
    assert_eq!(found(file, "quay.io/team/app:1"), Some(Login::Identity("it".to_owned())));
    for none in ["10.0.0.1:5000/a", "odd.io/a", "quay.com/a"] {
        assert_eq!(found(file, none), None, "{none}");
    }
    assert_eq!(
        found(r#"{"auths": {"docker.io": {"auth": "aHViOnB3"}}}"#, "a/b"),
        password("hub", "pw")
    );
    let secret = format!("{:?}", found(file, "quay.io/team/x"));
    assert!(!secret.contains("secret") && !secret.contains("team"), "{secret}");
}

#[test]
fn files_are_looked_for_where_they_are_kept() {
    let of = |set: &'static [(&str, &str)]| {
        let var = move |name: &str| {
            set.iter().find(|(known, _)| *known == name).map(|(_, at)| PathBuf::from(at))
        };
        places(var, Some("/home/own".into()))
    };
    let usual = of(&[("HOME", "/home/me"), ("XDG_RUNTIME_DIR", "/run/me")]);
    let usual: Vec<_> = usual.iter().map(|path| path.to_str().unwrap()).collect();
    let expected = [
        "/run/me/containers/auth.json",
        "/home/me/.config/containers/auth.json",
        "/home/own/.config/containers/auth.json",
        "/home/me/.docker/config.json",
        "/home/own/.docker/config.json",
    ];
    assert_eq!(usual, expected);
    let told = of(&[("DOCKER_CONFIG", "/d"), ("REGISTRY_AUTH_FILE", "/r"), ("HOME", "relative")]);
    assert_eq!(told.first().unwrap(), Path::new("/r"));
    assert!(told.contains(&"/d/config.json".into()));
    assert!(told.iter().all(|path| path.is_absolute()));
}

#[test]
fn a_file_that_cannot_be_read_is_told_without_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    let missing = find(&image("a"), Some(&path)).unwrap_err();
    assert_eq!(missing.code, Code::NotFound);
    fs::write(&path, r#"{"auths": {"docker.io": "hunter2"}}"#).unwrap();
    let error = find(&image("a"), Some(&path)).unwrap_err();
    let said = crate::model::chain(&error);
    assert!(error.code == Code::Invalid && !said.contains("hunter2"), "{said}");
}

#[test]
fn helpers_are_asked_by_the_name_of_the_server() {
    // Its path is part of no name, so it is found beside the tests' own programs by PATH alone.
    let odd = r#"{"credHelpers": {"quay.io": "../../bin/sh"}}"#;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    fs::write(&path, odd).unwrap();
    let error = find(&image("quay.io/a"), Some(&path)).unwrap_err();
    assert_eq!(error.code, Code::Invalid);

    let helper = dir.path().join("helper");
    let script = "#!/bin/sh\nread server\ncase $server in\n\
        quay.io) echo '{\"ServerURL\": \"quay.io\", \"Username\": \"me\", \"Secret\": \"pw\"}';;\n\
        https://index.docker.io/v1/) echo '{\"Username\": \"<token>\", \"Secret\": \"it\"}';;\n\
        broken) echo 'cannot unlock'; exit 3;;\n\
        *) echo 'credentials not found in native keychain'; exit 1;;\nesac\n";
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let program = helper.to_str().unwrap();
    let (code, said) = run(program, "quay.io\n").unwrap();
    let answer: Answer = serde_json::from_slice(&said).unwrap();
    assert_eq!((code, answer.username.as_str(), answer.secret.as_str()), (Some(0), "me", "pw"));
    assert_eq!(run(program, "broken\n").unwrap(), (Some(3), b"cannot unlock\n".to_vec()));
    assert_eq!(run(program, "other\n").unwrap().0, Some(1));
}
