//! `banger system` on a host where nothing is installed.

use crate::support::banger::{Finish, Surroundings};

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn a_dry_run_says_what_would_be_done_to_whom_it_may_concern() {
    if std::path::Path::new("/etc/banger").exists() {
        return;
    }
    let here = Surroundings::new();
    let none = here.path().join("none.sock");
    // All four are beside each other in a release.
    let release = here.path().join("release");
    std::fs::create_dir(&release).unwrap();
    for name in ["banger", "bangerd", "banger-helper", "banger-agent"] {
        std::fs::write(release.join(name), "").unwrap();
    }
    let line = format!("system install --dry-run --owner nobody --from {}", release.display());
    let said = here.banger(&none, &line).said();
    assert_eq!(said.code, 0, "{}", said.err);
    for path in ["/usr/local/lib/banger/bangerd", "/etc/systemd/system/banger-guests.service"] {
        assert!(said.out.contains(&format!("made       {path}\n")), "{}", said.out);
    }
    assert!(said.err.contains("nothing was done"), "{}", said.err);
    assert!(!std::path::Path::new("/etc/banger").exists());

    let said = here.banger(&none, "system install --dry-run --owner root").said();
    assert_eq!(said.code, 1);
    let line = format!("system install --dry-run --from {}", release.display());
    let said = here.banger(&none, &line).said();
    assert!(said.err.contains("--owner is missing"), "{}", said.err);
    assert!(said.err.contains("hint: banger system install --owner USER"), "{}", said.err);
}

#[test]
fn where_nothing_is_installed_that_is_said() {
    if std::path::Path::new("/etc/banger").exists() {
        return;
    }
    let here = Surroundings::new();
    let none = here.path().join("none.sock");
    for line in ["system status", "system restart", "system upgrade", "system uninstall"] {
        let said = here.banger(&none, line).said();
        assert_eq!(said.code, 1, "{line}");
        let why = match line {
            "system status" => "is not installed on this host",
            _ if is_root() => "is not installed on this host",
            _ => "needs root",
        };
        assert!(said.err.contains(why), "{line}: {}", said.err);
    }
}
