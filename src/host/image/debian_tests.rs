//! Arguments to mmdebstrap and what is made of its words; real builds are `local_tests.rs`'s.

use std::sync::{Arc, Mutex};

use super::*;

#[test]
fn only_plain_words_become_arguments() {
    let order = |suite: &str, include: &[&str], mirror: Option<&str>| {
        let include: Vec<String> = include.iter().map(|&name| name.to_owned()).collect();
        Order::new(suite, &include, mirror)
    };
    assert!(order("bookworm", &["systemd-sysv", "g++", "libc6:amd64"], None).is_ok());
    for bad in ["", "-x", "--help", "a b", "../x", "Book\nworm"] {
        assert_eq!(order(bad, &[], None).unwrap_err().code, Code::Invalid, "{bad:?}");
        assert_eq!(order("sid", &[bad], None).unwrap_err().code, Code::Invalid, "{bad:?}");
    }
    for bad in ["", "-", "file:///x", "http://x y", "deb http://x sid main"] {
        assert_eq!(order("sid", &[], Some(bad)).unwrap_err().code, Code::Invalid, "{bad:?}");
    }
}

#[test]
fn arguments_hold_sources_and_forget_the_hosts_options() {
    let order = Order::new("bookworm", &["vim".into()], None).unwrap();
    let sources = ["deb http://m bookworm main".to_owned()];
    let arguments = order.arguments(&sources, &["Acquire::http::Proxy \"http://p\"".to_owned()]);
    assert!(arguments.iter().any(|a| a.starts_with("--include=") && a.ends_with(",vim")));
    assert!(arguments.iter().any(|a| a.contains("99mmdebstrap")));
    let end: Vec<_> = arguments.iter().rev().take(3).rev().map(String::as_str).collect();
    assert_eq!(end, ["bookworm", "-", "deb http://m bookworm main"]);
    let order = Order::new("sid", &[], Some("http://mirror")).unwrap();
    assert_eq!(order.arguments(&sources, &[]).last().unwrap(), "http://mirror");
}

#[test]
fn ranges_of_subordinate_ids_are_found() {
    let text = "other:1:65536\nme:100000:65536\n1001:1:100000\nfew:1:100\n";
    assert!(has_range(text, "me", 5) && has_range(text, "nobody", 1001));
    assert!(!has_range(text, "few", 5) && !has_range(text, "x", 5) && !has_range("", "me", 5));
}

#[tokio::test]
async fn stages_are_told_and_the_last_lines_kept() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let progress: ProgressSink = Arc::new(move |line| sink.lock().unwrap().push(line));
    let mut text =
        String::from("I: automatically chosen mode: unshare\nI: running apt-get update...\n");
    for n in 0..30 {
        text.push_str(&format!("noise {n}\n"));
    }
    text.push_str("E: apt-get update failed\n");
    let last = child::tell(Some(text.as_bytes()), progress, stage).await;
    assert_eq!(*told.lock().unwrap(), ["running apt-get update"]);
    assert_eq!(last.len(), 20);
    let error = story("exit status: 1", last);
    assert!(crate::model::chain(&error).ends_with("apt-get update failed"));
    assert_eq!(error.detail.len(), 20);
}

#[test]
fn a_full_disk_is_told_from_other_failures() {
    let error = story("exit status: 25", vec!["tar: write error: No space left on device".into()]);
    assert_eq!(error.code, Code::NoSpace);
}
