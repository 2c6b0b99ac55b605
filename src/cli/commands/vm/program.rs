//! What a VM's image says of how commands run in it, and what the user says over that.

use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::guest::What;
use crate::model::OpId;
use crate::wire::reply::ProgramInfo;

/// The user's own shell, wherever it is started; accounts of services have one that lets nobody in.
/// No login shell: that would take the image's PATH for its own.
const SHELL: &str =
    "case \"${SHELL:-}\" in '' | */nologin | */false) exec sh ;; esac; exec \"$SHELL\"";

/// Of one VM; nothing, if its image came as a root file system.
#[derive(Debug, Default)]
pub(super) struct Image(Option<ProgramInfo>);

impl Image {
    pub(super) async fn of(client: &mut Client, op: OpId, vm: &str) -> Result<Self, CliError> {
        match client.program(op, vm).await {
            Ok(program) => Ok(Self(program)),
            // A daemon of before does not know what images say, and hangs up.
            Err(error) if error.code.as_deref() == Some("protocol") => {
                client.reconnect().await?;
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn user(&self) -> Option<String> {
        self.said(|program| &program.user)
    }

    pub(super) fn workdir(&self) -> Option<String> {
        self.said(|program| &program.workdir)
    }

    /// What runs, of the image's program and what the user gave; nothing is a shell.
    pub(super) fn argv(&self, entrypoint: Option<&str>, words: Vec<String>) -> Vec<String> {
        let program = self.0.as_ref();
        let (mut argv, cmd) = match (entrypoint, program) {
            // What the image gives its own program means nothing to another one.
            (Some(other), _) => (vec![other.to_owned()], vec![]),
            (None, Some(program)) => (program.entrypoint.clone(), program.cmd.clone()),
            (None, None) => (vec![], vec![]),
        };
        argv.retain(|word| entrypoint.is_none() || !word.is_empty());
        argv.extend(if words.is_empty() { cmd } else { words });
        argv
    }

    pub(super) fn shell(&self) -> What {
        match &self.0 {
            Some(_) => What::Command(["sh", "-c", SHELL].map(str::to_owned).into()),
            None => What::Shell,
        }
    }

    fn said(&self, what: fn(&ProgramInfo) -> &String) -> Option<String> {
        self.0.as_ref().map(what).filter(|text| !text.is_empty()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn image(entrypoint: &[&str], cmd: &[&str]) -> Image {
        let (entrypoint, cmd) = (own(entrypoint), own(cmd));
        Image(Some(ProgramInfo { entrypoint, cmd, ..ProgramInfo::default() }))
    }

    #[test]
    fn words_take_the_place_of_the_images_words_and_an_entrypoint_that_of_its_program() {
        let (python, tool) = (image(&[], &["python3"]), image(&["/tool"], &["--help"]));
        for (image, entrypoint, words, expected) in [
            (&python, None, &[][..], &["python3"][..]),
            (&python, None, &["python", "-c", "1"], &["python", "-c", "1"]),
            (&tool, None, &[], &["/tool", "--help"]),
            (&tool, None, &["run"], &["/tool", "run"]),
            (&tool, Some("sh"), &[], &["sh"]),
            (&tool, Some("sh"), &["-c", "id"], &["sh", "-c", "id"]),
            (&tool, Some(""), &["id"], &["id"]),
            (&tool, Some(""), &[], &[]),
            (&Image(None), None, &["id"], &["id"]),
            (&Image(None), None, &[], &[]),
        ] {
            assert_eq!(image.argv(entrypoint, own(words)), own(expected), "{image:?} {words:?}");
        }
    }
}
