//! What an image says of how it is run, as the OCI has it, and what of it a VM honours.

/// Of an image that came as one of containers. What is empty it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<(String, String)>,
    /// `name`, `uid`, each with `:group` or not.
    pub user: String,
    pub workdir: String,
    /// `SIGQUIT`, `QUIT`, `3`, `RTMIN+3`.
    pub stop_signal: String,
    /// `80/tcp`.
    pub ports: Vec<String>,
    pub volumes: Vec<String>,
    pub labels: Vec<(String, String)>,
}

/// Of all that it says together: it has to reach a guest with everything else that one is told.
pub const MAX_CONFIG_BYTES: usize = 256 << 10;

/// An image's configuration in the hands of one VM, as it was when the VM was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUse {
    pub config: ImageConfig,
    /// The image's program runs from every start of the VM on.
    pub runs: bool,
}

/// Which init a guest boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageInit {
    /// Whichever the image has: of images that came as a root file system.
    Any,
    /// The image's if it is systemd: an image of containers often has another that was never meant to
    /// run.
    Systemd,
    /// The program that the image is there for is one.
    Program(String),
}

impl ImageConfig {
    /// What it runs if nobody says otherwise. None, if that is an init, which is booted.
    #[must_use]
    pub fn program(&self) -> Vec<String> {
        match self.init() {
            ImageInit::Program(_) => vec![],
            _ => [self.entrypoint.as_slice(), &self.cmd].concat(),
        }
    }

    /// What comes before the words that somebody gives it to run.
    #[must_use]
    pub fn wrapper(&self) -> &[String] {
        match self.init() {
            ImageInit::Program(_) => &[],
            _ => &self.entrypoint,
        }
    }

    #[must_use]
    pub fn init(&self) -> ImageInit {
        let first = self.entrypoint.first().or_else(|| self.cmd.first());
        match first.filter(|program| is_init(program)) {
            Some(program) => ImageInit::Program(program.clone()),
            None => ImageInit::Systemd,
        }
    }

    /// Its working directory and its volumes, as far as they are places at all.
    #[must_use]
    pub fn directories(&self) -> Vec<String> {
        let named = std::iter::once(&self.workdir).chain(&self.volumes);
        named.filter(|path| path.starts_with('/') && path.len() > 1).cloned().collect()
    }

    /// With `own`, which is stronger.
    #[must_use]
    pub fn env_with(&self, own: &[(String, String)]) -> Vec<(String, String)> {
        let hidden = |name: &str| own.iter().any(|(known, _)| known == name);
        let of_image = self.env.iter().filter(|(name, _)| !hidden(name));
        of_image.chain(own).cloned().collect()
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        let Self { entrypoint, cmd, env, user, workdir, stop_signal, ports, volumes, labels } =
            self;
        let words: usize =
            [entrypoint, cmd, ports, volumes].into_iter().flatten().map(String::len).sum();
        let pairs = env.iter().chain(labels).map(|(name, value)| name.len() + value.len());
        words + pairs.sum::<usize>() + user.len() + workdir.len() + stop_signal.len()
    }
}

impl ImageInit {
    /// Two guests of one image boot alike only if these are the same.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Any => "any",
            Self::Systemd => "systemd",
            Self::Program(program) => program,
        }
    }
}

/// Programs that are nothing but the first process of a machine.
fn is_init(program: &str) -> bool {
    let Some((dir, name)) = program.rsplit_once('/') else { return false };
    program.starts_with('/')
        && (name == "systemd"
            || name == "init" && ["", "/sbin", "/usr/sbin", "/etc"].contains(&dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(entrypoint: &[&str], cmd: &[&str]) -> ImageConfig {
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        ImageConfig { entrypoint: own(entrypoint), cmd: own(cmd), ..ImageConfig::default() }
    }

    #[test]
    fn an_init_is_booted_and_anything_else_is_run() {
        for (entrypoint, cmd) in [
            (&["/sbin/init"][..], &[][..]),
            (&[], &["/lib/systemd/systemd"]),
            (&["/init"], &["serve"]),
            (&["/usr/lib/systemd/systemd", "--show-status"], &[]),
        ] {
            let config = config(entrypoint, cmd);
            let first = entrypoint.first().or_else(|| cmd.first()).unwrap().to_owned();
            assert_eq!(config.init(), ImageInit::Program(first.to_owned()));
            assert!(config.program().is_empty() && config.wrapper().is_empty());
        }
        for program in ["init", "/usr/bin/dumb-init", "/sbin/tini", "/srv/init", "python3"] {
            let config = config(&[program], &["a"]);
            assert_eq!(config.init(), ImageInit::Systemd, "{program}");
            assert_eq!(config.program(), [program, "a"]);
            assert_eq!(config.wrapper(), [program]);
        }
        assert!(config(&[], &[]).program().is_empty());
    }

    #[test]
    fn what_the_owner_sets_hides_what_the_image_sets() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let config = ImageConfig {
            env: vec![pair("A", "image"), pair("B", "image")],
            ..ImageConfig::default()
        };
        let both = config.env_with(&[pair("B", "own"), pair("C", "own")]);
        assert_eq!(both, [pair("A", "image"), pair("B", "own"), pair("C", "own")]);
    }

    #[test]
    fn only_places_are_made() {
        let volumes = ["/data", "relative", "/", ""].map(str::to_owned).to_vec();
        let config = ImageConfig { workdir: "/srv/app".into(), volumes, ..ImageConfig::default() };
        assert_eq!(config.directories(), ["/srv/app", "/data"]);
    }
}
