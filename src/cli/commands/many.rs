//! One command about several objects: side by side, reported in the order given, and one that
//! fails does not stop the others.

use std::collections::HashSet;

use futures::StreamExt;

use crate::cli::app::App;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::{self, OnInterrupt};
use crate::cli::ui::progress::Progress;
use crate::model::OpId;
use crate::wire::request::Request;

/// More at once would only wait in the daemon.
const AT_ONCE: usize = 32;

/// What the words name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noun {
    /// By name, id or prefix of the id: two words may mean the same VM.
    Vm,
    /// By name alone.
    Artefact,
}

/// A word, and the operation that is to deal with it unless it means nothing.
struct Target {
    word: String,
    op: OpId,
    refused: Option<CliError>,
}

/// Carries out `request` for each and prints the names of those that it was carried out for.
pub(crate) async fn each(
    app: &App,
    words: &[String],
    noun: Noun,
    on_interrupt: OnInterrupt,
    request: impl Fn(String) -> Request,
) -> Result<Exit, CliError> {
    let targets = targets(app, words, noun).await?;
    let board = Progress::new(&app.out);
    let several = targets.len() > 1;
    let work = targets.into_iter().map(|target| {
        let request = request(target.word.clone());
        one(app, &board, several, target, request, on_interrupt)
    });
    let mut work = futures::stream::iter(work).buffered(AT_ONCE);
    let mut exits = vec![];
    while let Some(result) = work.next().await {
        match result {
            Ok(name) => {
                board.hidden(|| app.out.line(&name))?;
                exits.push(Exit::Ok);
            }
            Err(error) => {
                board.hidden(|| app.failed(&error));
                exits.push(error.exit);
            }
        }
    }
    Ok(Exit::of_many(&exits))
}

async fn one(
    app: &App,
    board: &Progress<'_>,
    several: bool,
    target: Target,
    request: Request,
    on_interrupt: OnInterrupt,
) -> Result<String, CliError> {
    let Target { word, op, refused } = target;
    if let Some(error) = refused {
        return Err(error);
    }
    let mut client = app.client().await.map_err(|error| error.of(op))?;
    let mut track = board.track(several.then_some(word.as_str()));
    let ended = operation::run(&mut client, op, &request, &mut track, on_interrupt).await;
    let ended = ended.map_err(|broken| CliError::from(broken).about(&word))?;
    if let Some(why) = ended.unchanged() {
        board.note(format!("{word}: {why}"));
    }
    Ok(word)
}

/// Every object once, at its first mention.
async fn targets(app: &App, words: &[String], noun: Noun) -> Result<Vec<Target>, CliError> {
    let mut seen = HashSet::new();
    let words: Vec<&String> = words.iter().filter(|word| seen.insert(word.as_str())).collect();
    let target = |word: &String| -> Result<Target, CliError> {
        Ok(Target { op: app.op(Some(word))?, word: word.clone(), refused: None })
    };
    let mut targets = words.into_iter().map(target).collect::<Result<Vec<_>, _>>()?;
    if noun == Noun::Vm && targets.len() > 1 {
        let mut client = app.client().await?;
        let mut ids = HashSet::new();
        let mut once = vec![];
        for mut target in targets {
            match id(&mut client, &target).await {
                Ok(id) => {
                    if !ids.insert(id) {
                        continue;
                    }
                }
                Err(error) => target.refused = Some(error),
            }
            once.push(target);
        }
        targets = once;
    }
    Ok(targets)
}

async fn id(client: &mut Client, target: &Target) -> Result<String, CliError> {
    let vm = client.vm(target.op, &target.word).await;
    vm.map(|vm| vm.id).map_err(|error| error.about(&target.word))
}
