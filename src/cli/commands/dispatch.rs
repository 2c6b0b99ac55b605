//! From the parsed command to its function.

use super::{
    completion, daemon, doctor, events, gc, image, kernel, ops, ssh_config, ssh_proxy, system,
    version, vm,
};
use crate::cli::app::App;
use crate::cli::args::Command;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

pub(crate) async fn run(app: &App, command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Vm(command) => vm(app, command).await,
        Command::Run(args) => vm::run::run(app, *args).await,
        Command::Exec(args) => vm::exec::run(app, args).await,
        Command::Ssh(args) => vm::ssh::run(app, args).await,
        Command::Ps(args) => vm::list::ps(app, args).await,
        Command::Image(command) => image(app, command).await,
        Command::Kernel(command) => kernel(app, command).await,
        Command::Ops(command) => ops(app, command).await,
        Command::Events(args) => events::run(app, args).await,
        Command::SshConfig(args) => ssh_config::run(app, &args),
        Command::SshProxy(args) => ssh_proxy::run(app, args).await,
        Command::Doctor(args) => doctor::run(app, args).await,
        Command::Gc(args) => gc::run(app, args).await,
        Command::Daemon(daemon::Command::Status(args)) => daemon::status::run(app, args).await,
        Command::System(command) => system(app, command).await,
        Command::Completion(args) => completion::run(app, &args),
        Command::Version(args) => version::run(app, &args),
    }
}

async fn vm(app: &App, command: vm::Command) -> Result<Exit, CliError> {
    use vm::Command as C;
    match command {
        C::Create(args) => vm::create::run(app, args).await,
        C::Run(args) => vm::run::run(app, *args).await,
        C::Start(args) => vm::start::run(app, args).await,
        C::Stop(args) => vm::stop::run(app, args).await,
        C::Restart(args) => vm::restart::run(app, args).await,
        C::Suspend(args) => vm::suspend::run(app, args).await,
        C::Resume(args) => vm::resume::run(app, args).await,
        C::Set(args) => vm::set::run(app, args).await,
        C::Kill(args) => vm::kill::run(app, args).await,
        C::Delete(args) => vm::delete::run(app, args).await,
        C::List(args) => vm::list::run(app, args).await,
        C::Show(args) => vm::show::run(app, args).await,
        C::Exec(args) => vm::exec::run(app, args).await,
        C::Ssh(args) => vm::ssh::run(app, args).await,
        C::Workspace(command) => workspace(app, command).await,
        C::Commit(args) => vm::commit::run(app, args).await,
        C::Jobs(args) => vm::jobs::run(app, args).await,
        C::Cp(args) => vm::cp::run(app, args).await,
        C::Logs(args) => vm::logs::run(app, args).await,
        C::Health(args) => vm::health::run(app, args).await,
        C::Recover(args) => vm::recover::run(app, args).await,
        C::Stats(args) => vm::stats::run(app, args).await,
    }
}

async fn workspace(app: &App, command: vm::workspace::Command) -> Result<Exit, CliError> {
    use vm::workspace::Command as C;
    match command {
        C::Prepare(args) => vm::workspace::prepare::run(app, args).await,
        C::Export(args) => vm::workspace::export::run(app, args).await,
        C::Status(args) => vm::workspace::status::run(app, args).await,
    }
}

async fn image(app: &App, command: image::Command) -> Result<Exit, CliError> {
    use image::Command as C;
    match command {
        C::Build(image::build::Command::Debian(args)) => image::build::debian(app, args).await,
        C::Build(image::build::Command::Containerfile(args)) => {
            image::containerfile::run(app, args).await
        }
        C::Import(args) => image::import::run(app, args).await,
        C::Pull(args) => image::pull::run(app, args).await,
        C::List(args) => image::list::run(app, args).await,
        C::Show(args) => image::show::run(app, args).await,
        C::Delete(args) => image::delete::run(app, args).await,
        C::Tag(args) => image::tag::run(app, args).await,
        C::Export(args) => image::export::run(app, args).await,
        C::Df(args) => image::df::run(app, args).await,
        C::Prune(args) => image::prune::run(app, args).await,
    }
}

async fn kernel(app: &App, command: kernel::Command) -> Result<Exit, CliError> {
    use kernel::Command as C;
    match command {
        C::Import(args) => kernel::import::run(app, args).await,
        C::Export(args) => kernel::export::run(app, args).await,
        C::Pull(args) => kernel::pull::run(app, args).await,
        C::List(args) => kernel::list::run(app, args).await,
        C::Show(args) => kernel::show::run(app, args).await,
        C::Rm(args) => kernel::rm::run(app, args).await,
        C::Prune(args) => kernel::prune::run(app, args).await,
        C::Default(args) => kernel::default::run(app, args).await,
    }
}

async fn ops(app: &App, command: ops::Command) -> Result<Exit, CliError> {
    use ops::Command as C;
    match command {
        C::List(args) => ops::list::run(app, args).await,
        C::Show(args) => ops::show::run(app, args).await,
        C::Watch(args) => ops::watch::run(app, args).await,
        C::Cancel(args) => ops::cancel::run(app, args).await,
    }
}

async fn system(app: &App, command: system::Command) -> Result<Exit, CliError> {
    use system::Command as C;
    match command {
        C::Install(args) => system::install::run(app, args).await,
        C::Status(args) => system::status::run(app, args).await,
        C::Restart(args) => system::restart::run(app, args).await,
        C::Upgrade(args) => system::upgrade::run(app, args).await,
        C::Uninstall(args) => system::uninstall::run(app, args).await,
        C::StopGuests(args) => system::stop_guests::run(app, args).await,
    }
}
