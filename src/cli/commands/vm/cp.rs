//! `banger vm cp`: files and trees into a guest and out of it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Instant;

use banger_copy::Progress;
use tokio::sync::watch;

use crate::cli::app::App;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::guest::{Copied, Copy, Guest};
use crate::cli::ui::{bar, text};

const AFTER: &str = "\
Examples:
  banger vm cp app.tar web:/srv/            into that directory
  banger vm cp ./src web:/root/app          a tree; into it if it is there already
  banger vm cp ./src/. web:/root/app        what is in it
  banger vm cp web:/var/log/app.log .       out of the guest
  pg_dump db | banger vm cp - web:/root/db.sql
  banger vm cp web:/root/db.sql - | less

Modes, times, links and holes are kept; owners are not: in the guest all is root's. A file has its
name when all of it is there. What was broken off goes on where it was when the same is copied
again, and what is the same already is not sent. A path in the guest without / is below /root.
A file here with a colon in its name: write ./a:b.";

/// Copy files and trees to or from a running VM
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Files and directories, and last where to: a path here, VM:PATH, or - for a stream
    #[arg(value_name = "PATH", num_args = 2.., required = true)]
    paths: Vec<OsString>,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Stream,
    Here(PathBuf),
    /// With the path's bytes; empty is the home.
    There(String, PathBuf),
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let (vm, copy) = plan(args.paths)?;
    let op = app.op(Some(&vm))?;
    let mut client = app.client().await?;
    let guest = Guest::dial(&mut client, op, &vm, true).await;
    let mut guest = guest.map_err(|error| error.about(&vm))?;
    let began = Instant::now();
    let (tell, told) = watch::channel(Progress::default());
    let shown = bar::bytes(&app.out, told);
    let copied = guest.copy(op, copy, tell, std::future::ready(Some(client))).await;
    drop(shown);
    let Copied { progress, skipped } = copied?;
    for line in skipped {
        app.out.note(line);
    }
    app.out.note(summary(progress, began));
    Ok(Exit::Ok)
}

fn summary(progress: Progress, began: Instant) -> String {
    let elapsed = began.elapsed();
    let sent = progress.done - progress.kept;
    let kept = match progress.kept {
        0 => String::new(),
        kept => format!(", {} there already", text::size(kept)),
    };
    format!("{} copied in {}{kept}", text::size(sent), text::elapsed(elapsed))
}

/// Which way, of which VM.
fn plan(paths: Vec<OsString>) -> Result<(String, Copy), CliError> {
    let mut ends: Vec<End> = paths.iter().map(|path| end(path)).collect();
    let to = ends.pop().unwrap_or(End::Stream);
    let (mut here, mut there) = (vec![], vec![]);
    let mut stream = false;
    for from in ends {
        match from {
            End::Stream => stream = true,
            End::Here(path) => here.push(path),
            End::There(vm, path) => there.push((vm, path)),
        }
    }
    let one_side = CliError::usage("one side must be a VM, and the other must be here")
        .hint("write a path in a VM as NAME:PATH");
    match (to, stream, here.is_empty(), there.is_empty()) {
        (End::There(vm, place), false, false, true) => Ok((vm, Copy::To { from: here, place })),
        (End::There(vm, place), true, true, true) => Ok((vm, Copy::StreamTo { place })),
        (to @ (End::Here(_) | End::Stream), false, true, false) => {
            let vm = there.first().map(|(vm, _)| vm.clone()).unwrap_or_default();
            if there.iter().any(|(other, _)| *other != vm) {
                return Err(CliError::usage("all that is copied must be in one VM"));
            }
            let mut paths: Vec<_> = there.into_iter().map(|(_, path)| path).collect();
            match (to, paths.len()) {
                (End::Here(place), _) => Ok((vm, Copy::From { paths, place })),
                (_, 1) => Ok((vm, Copy::StreamFrom { path: paths.remove(0) })),
                _ => Err(CliError::usage("a stream takes one file")),
            }
        }
        _ => Err(one_side),
    }
}

/// A colon before any slash makes it a VM's. Paths may have any bytes.
fn end(word: &OsStr) -> End {
    let bytes = word.as_bytes();
    if bytes == b"-" {
        return End::Stream;
    }
    let colon = bytes.iter().position(|byte| matches!(byte, b':' | b'/'));
    match colon.filter(|at| *at > 0 && bytes.get(*at) == Some(&b':')) {
        Some(at) => {
            let (vm, path) = bytes.split_at(at);
            let path = path.get(1..).unwrap_or_default();
            let path = match path {
                b"~" => b"",
                path => path.strip_prefix(b"~/").unwrap_or(path),
            };
            let path = PathBuf::from(OsString::from_vec(path.to_vec()));
            End::There(String::from_utf8_lossy(vm).into_owned(), path)
        }
        None => End::Here(word.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(words: &[&str]) -> Result<(String, Copy), CliError> {
        plan(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn words_are_ends() {
        assert_eq!(end("-".as_ref()), End::Stream);
        assert_eq!(end("web:".as_ref()), End::There("web".into(), "".into()));
        assert_eq!(end("web:~/a:b".as_ref()), End::There("web".into(), "a:b".into()));
        assert_eq!(end("web:/a".as_ref()), End::There("web".into(), "/a".into()));
        for here in ["./a:b", "/a:b", "a", ":a", "a/b:c"] {
            assert_eq!(end(here.as_ref()), End::Here(here.into()), "{here}");
        }
    }

    #[test]
    fn one_side_is_a_vm() {
        assert!(matches!(planned(&["a", "b", "web:/x"]), Ok((vm, Copy::To { from, .. }))
            if vm == "web" && from.len() == 2));
        assert!(matches!(planned(&["web:a", "web:b", "."]), Ok((_, Copy::From { paths, .. }))
            if paths.len() == 2));
        assert!(matches!(planned(&["-", "web:a"]), Ok((_, Copy::StreamTo { .. }))));
        assert!(matches!(planned(&["web:a", "-"]), Ok((_, Copy::StreamFrom { .. }))));
        for bad in [
            &["a", "b"][..],
            &["web:a", "web:b"],
            &["web:a", "db:b", "c"],
            &["a", "web:b", "c"],
            &["-", "a", "web:b"],
            &["web:a", "web:b", "-"],
            &["-", "-"],
        ] {
            assert!(planned(bad).is_err(), "{bad:?}");
        }
    }
}
