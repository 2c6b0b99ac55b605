//! `banger image export`: what the daemon streams becomes a file, or a directory of files. It appears
//! whole, by a rename, or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use clap::ValueHint;
use clap_complete::ArgValueCandidates;
use tokio::sync::mpsc;

use crate::cli::app::App;
use crate::cli::commands::parse;
use crate::cli::complete;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::Interrupts;
use crate::cli::ui::text;
use crate::wire::reply::Reply;
use crate::wire::request::Request;

const AFTER: &str = "\
Examples:
  banger image export web ./web                 a directory, as skopeo and umoci take it
  banger image export web web.tar               the same in one file
  banger image export web - | zstd > web.tar.zst
  skopeo copy oci:./web docker://registry.example.org/web:1

  banger image export web --bundle web.bundle.tar.zst
  banger image export web --bundle web.bundle.tar.zst --kernel-ref debian-6.1

The layout has one layer, not packed. Imported again it is the same root file system, run in the
same way. A bundle is for banger alone: the image's own file, to the last byte, how it is run and
which kernel it wants, with the digest of each.";

/// Pieces that wait to be written.
const WAITING: usize = 8;

/// Write an image as an OCI layout, or as a bundle
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Args {
    /// Name of the image
    #[arg(add = ArgValueCandidates::new(complete::images))]
    name: String,
    /// Directory to make, file to make if it ends in .tar, or - for standard output
    #[arg(
        value_hint = ValueHint::AnyPath, required_unless_present = "bundle",
        conflicts_with = "bundle"
    )]
    path: Option<PathBuf>,
    /// File to make, a bundle; - for standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    bundle: Option<PathBuf>,
    /// Name of the kernel that the bundle says it wants, in place of the one that the image has
    #[arg(
        long, value_name = "NAME", requires = "bundle", value_parser = parse::artefact_name,
        add = ArgValueCandidates::new(complete::kernels)
    )]
    kernel_ref: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Stdout,
    File(PathBuf),
    Directory(PathBuf),
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit, CliError> {
    let Args { name, path, bundle, kernel_ref } = args;
    match (bundle, path) {
        (Some(file), _) => {
            let request = Request::ExportImageBundle { name: name.clone(), kernel: kernel_ref };
            stream(app, &name, request, Place::file(file)?).await
        }
        (None, path) => {
            let request = Request::ExportImage { name: name.clone() };
            stream(app, &name, request, Place::of(path.unwrap_or_default())?).await
        }
    }
}

/// What the daemon answers in pieces, put in its place.
pub(crate) async fn stream(
    app: &App,
    name: &str,
    request: Request,
    place: Place,
) -> Result<Exit, CliError> {
    let op = app.op(Some(name))?;
    let mut client = app.client().await?;
    client.send(op, None, &request).await.map_err(|error| CliError::from_error("ask", &error))?;
    let (sender, pieces) = mpsc::channel(WAITING);
    let to = place.clone();
    let mut writing = tokio::task::spawn_blocking(move || write(&to, Pieces::new(pieces)));
    let mut interrupts = Interrupts::new()?;
    let streamed = async {
        loop {
            match client.stream().await? {
                Reply::Bytes(piece) => {
                    if sender.send(Ok(piece)).await.is_err() {
                        return Ok(()); // whoever writes has ended, and says why
                    }
                }
                Reply::Done(_) => return Ok(()),
                other => return Err(CliError::unexpected("pieces of an export", &other)),
            }
        }
    };
    let streamed = tokio::select! {
        streamed = streamed => streamed.map_err(|error| error.about(name).of(op)),
        number = interrupts.next() => {
            Err(CliError::new(Exit::Interrupted(number), "interrupted"))
        }
    };
    if streamed.is_err() {
        // So that nothing that is half there takes its place.
        drop(sender.send(Err(io::ErrorKind::ConnectionAborted.into())).await);
    }
    drop(sender);
    let written = (&mut writing).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    streamed?;
    match (written, &place) {
        (Ok(_), Place::Stdout) => {}
        (Ok(bytes), Place::File(path) | Place::Directory(path)) => {
            app.out.note(format!("{} written", text::size(bytes)));
            app.out.line(path.display())?;
        }
        (Err(error), Place::Stdout) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Err(CliError::stdout_closed());
        }
        (Err(error), place) => {
            return Err(CliError::from_error(format!("write {}", shown(place)), &error));
        }
    }
    Ok(Exit::Ok)
}

impl Place {
    /// A file that ends in `.tar`, or a directory.
    fn of(path: PathBuf) -> Result<Self, CliError> {
        match path.extension().is_some_and(|ext| ext == "tar") || path.as_os_str() == "-" {
            true => Self::file(path),
            false => is_free(&path, true).map(|()| Self::Directory(path)),
        }
    }

    pub(crate) fn file(path: PathBuf) -> Result<Self, CliError> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        is_free(&path, false).map(|()| Self::File(path))
    }
}

fn is_free(path: &Path, for_directory: bool) -> Result<(), CliError> {
    let is_free = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        // An empty directory is one that somebody made for it.
        Ok(meta) => {
            let empty = || path.read_dir().is_ok_and(|mut entries| entries.next().is_none());
            for_directory && meta.is_dir() && empty()
        }
        Err(_) => false,
    };
    if is_free {
        return Ok(());
    }
    let failure = CliError::failed(format!("{} is there already", path.display()));
    Err(failure.hint("name a file or directory that is not there yet"))
}

fn shown(place: &Place) -> String {
    match place {
        Place::Stdout => "standard output".to_owned(),
        Place::File(path) | Place::Directory(path) => path.display().to_string(),
    }
}

/// How many bytes that were.
fn write(place: &Place, from: Pieces) -> io::Result<u64> {
    match place {
        Place::Stdout => copy(from, &mut io::stdout().lock()),
        Place::File(path) => appear(path, |new| {
            let mut file = File::options().write(true).create_new(true).open(new)?;
            let bytes = copy(from, &mut file)?;
            file.sync_all()?;
            Ok(bytes)
        }),
        Place::Directory(path) => appear(path, |new| {
            fs::create_dir(new)?;
            unpack(from, new)
        }),
    }
}

/// Makes a thing beside its place and puts it there; what fails leaves nothing.
fn appear(path: &Path, make: impl FnOnce(&Path) -> io::Result<u64>) -> io::Result<u64> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let new = path.with_file_name(format!(".{name}.banger-{}", std::process::id()));
    let made = make(&new).and_then(|bytes| fs::rename(&new, path).map(|()| bytes));
    if made.is_err() {
        drop(fs::remove_file(&new).or_else(|_| fs::remove_dir_all(&new)));
    }
    made
}

fn copy(mut from: Pieces, to: &mut dyn Write) -> io::Result<u64> {
    let bytes = io::copy(&mut from, to)?;
    to.flush()?;
    Ok(bytes)
}

fn unpack(from: Pieces, dir: &Path) -> io::Result<u64> {
    let mut archive = tar::Archive::new(from);
    let mut bytes = 0;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || !entry.header().entry_type().is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no file of a layout"));
        }
        let path = dir.join(&name);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        let mut file = File::options().write(true).create_new(true).open(&path)?;
        bytes += io::copy(&mut entry, &mut file)?;
        file.sync_all()?;
    }
    // Up to its end, where an error may wait.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(bytes)
}

/// What comes by a channel, read on a thread.
struct Pieces {
    from: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: io::Cursor<Vec<u8>>,
}

impl Pieces {
    fn new(from: mpsc::Receiver<io::Result<Vec<u8>>>) -> Self {
        Self { from, piece: io::Cursor::new(vec![]) }
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            match self.from.blocking_recv() {
                Some(piece) => self.piece = io::Cursor::new(piece?),
                None => return Ok(0),
            }
        }
    }
}
