//! The guest's half of a copy, see `banger_copy`: a process of its own, with the rights of its user.

use std::io::{self, Write as _};
use std::process::ExitCode;

use banger_copy::{CopyError, Receiver, Task, read_task, receive, send};

use crate::error::Chain;
use crate::standard::standard;

/// A guest may end at any moment, so a file is on its disk before it has its name.
const HERE: Receiver = Receiver { durable: true, modes: 0o7777 };

/// The task comes first on standard input; what fails is told to the other end as well.
pub(crate) fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "copy: {}", Chain(&error)));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), CopyError> {
    let (mut from, to) = (standard(0), standard(1));
    let quiet = &mut |_| {};
    match read_task(&mut *from)? {
        Task::Receive(place) => receive(HERE, &place, &*from, &*to, quiet).map(drop),
        Task::Send(paths) => {
            let (_, skipped) = send(&paths, &*to, &*from, quiet)?;
            for path in skipped {
                let what = path.display();
                drop(writeln!(io::stderr(), "{what}: left out, no file, directory or link"));
            }
            Ok(())
        }
    }
}
