//! What a command knows about where it runs: streams, clock, and, found when first asked for, the repository, its
//! data directory and the settings.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use autopack_shared::repo::locate;
use autopack_shared::runtime::clock::{Clock, IdSource, SystemClock, SystemIds};
use autopack_shared::runtime::config::{Environment, Settings};

use crate::args::Global;
use crate::exit::{CliError, During as _};
use crate::output::Output;

/// Everything a command is given.
pub(crate) struct Context {
    /// The streams.
    pub(crate) out: Output,
    /// The environment.
    pub(crate) env: Environment,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Fresh names.
    pub(crate) ids: Arc<dyn IdSource>,
    /// More detail on stderr.
    pub(crate) verbose: bool,
    global: Global,
    // Settings that flags of the command stand for.
    flags: Vec<(&'static str, String)>,
    place: OnceCell<Place>,
}

/// The repository a command acts on, and what belongs to it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The top folder, without symlinks.
    pub(crate) root: PathBuf,
    /// Where runs keep what they leave.
    pub(crate) data_dir: PathBuf,
    /// The settings in force.
    pub(crate) settings: Settings,
}

/// A supervisor elsewhere, and how it is talked to.
#[derive(Clone)]
pub(crate) struct Remote {
    /// Its URL, or several separated by commas.
    pub(crate) url: String,
    /// Who calls.
    pub(crate) token: Option<String>,
    /// Which project is meant.
    pub(crate) project: Option<String>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("global", &self.global).finish_non_exhaustive()
    }
}

impl Context {
    /// A context of this process.
    pub(crate) fn new(global: Global, flags: Vec<(&'static str, String)>, env: Environment) -> Self {
        let out = Output::of_process(global.output, global.quiet, global.no_color, &env);
        Self {
            out,
            env,
            clock: Arc::new(SystemClock::default()),
            ids: Arc::new(SystemIds),
            verbose: global.verbose,
            global,
            flags,
            place: OnceCell::new(),
        }
    }

    /// The repository the person means: `--repo`, or the one around the current folder.
    pub(crate) fn root(&self) -> Result<PathBuf, CliError> {
        let Some(named) = &self.global.repo else {
            let here = std::env::current_dir().during("find the current folder")?;
            return locate::around(&here).ok_or_else(|| {
                CliError::refused(
                    "not_a_repository",
                    "no git repository here",
                    format!("neither {} nor a folder above it holds .git", here.display()),
                    "go into a repository, or name one with --repo DIR",
                )
            });
        };
        let root = named.canonicalize().during(format!("open the repository {}", named.display()))?;
        if locate::around(&root).as_deref() == Some(&root) {
            return Ok(root);
        }
        let fix = match locate::around(&root) {
            Some(above) => format!("did you mean --repo {}?", above.display()),
            None => format!("git init {}", root.display()),
        };
        let what = format!("{} is not a git repository", root.display());
        Err(CliError::refused("not_a_repository", what, "it holds no .git", fix))
    }

    /// The repository with its settings and data directory.
    pub(crate) fn place(&self) -> Result<&Place, CliError> {
        if let Some(place) = self.place.get() {
            return Ok(place);
        }
        let root = self.root()?;
        let root = root.canonicalize().unwrap_or(root);
        let settings = self.settings(Some(&root))?;
        if let Some(server) = &settings.server {
            let why = format!("{server} is named as the supervisor, and this command works on a repository here");
            let fix = "leave --server and AUTOPACK_SERVER out; gaps, plan, autopilot, runs, approvals, leases, audit and \
                       projects know them";
            return Err(CliError::refused("unsupported_server", "not by a supervisor elsewhere", why, fix));
        }
        let data_dir = settings.data_dir.clone().unwrap_or_else(|| root.join(".autonomous_runs"));
        let data_dir = std::path::absolute(&data_dir).during("find the data directory")?;
        Ok(self.place.get_or_init(|| Place { root, data_dir, settings }))
    }

    /// Where what is found is kept: the data directory, and with a supervisor elsewhere the one that is named.
    pub(crate) fn kept_in(&self) -> Result<PathBuf, CliError> {
        if !self.is_remote() {
            return Ok(self.place()?.data_dir.clone());
        }
        let named = self.host_settings()?.data_dir.ok_or_else(|| {
            CliError::invalid(
                "there is no place to keep it",
                "the repository is elsewhere, and so is what its runs leave",
                "name a folder with --data-dir DIR, or use -o json > FILE",
            )
        })?;
        std::path::absolute(&named).during("find the data directory")
    }

    /// The data directory that the person names, where the command does as well without its repository.
    pub(crate) fn named_data_dir(&self) -> Result<Option<PathBuf>, CliError> {
        let named = self.global.repo.is_none().then_some(self.global.data_dir.as_ref()).flatten();
        named.map(|data_dir| std::path::absolute(data_dir).during("find the data directory")).transpose()
    }

    /// The supervisor elsewhere that is named, if one is.
    pub(crate) fn remote(&self) -> Result<Option<Remote>, CliError> {
        let settings = self.host_settings()?;
        let Some(url) = settings.server else { return Ok(None) };
        let named = self.global.project.clone().or_else(|| self.env.get("AUTOPACK_PROJECT").map(str::to_owned));
        Ok(Some(Remote { url, token: self.token()?, project: named.filter(|name| !name.is_empty()) }))
    }

    /// Whether a supervisor elsewhere is named. What is wrong with how it is named is told when it is connected to.
    pub(crate) fn is_remote(&self) -> bool {
        !matches!(self.remote(), Ok(None))
    }

    /// The settings that need no repository.
    pub(crate) fn host_settings(&self) -> Result<Settings, CliError> {
        self.settings(self.root().ok().as_deref())
    }

    /// The person's or the worker's token: `AUTOPACK_TOKEN`, else the file that is named.
    pub(crate) fn token(&self) -> Result<Option<String>, CliError> {
        if let Some(token) = self.env.get("AUTOPACK_TOKEN").filter(|token| !token.is_empty()) {
            return Ok(Some(token.to_owned()));
        }
        let Some(file) = self.host_settings()?.token_file else { return Ok(None) };
        let text = std::fs::read_to_string(&file).during(format!("read the token in {}", file.display()))?;
        Ok(Some(text.trim().to_owned()))
    }

    /// The settings: the file of `--config`, else `autopack.toml` of the repository where there is one.
    pub(crate) fn settings(&self, root: Option<&Path>) -> Result<Settings, CliError> {
        let named = self.global.config.clone();
        let file = named.clone().or_else(|| Some(root?.join("autopack.toml")));
        let text = match file.as_ref().map(std::fs::read_to_string) {
            None => None,
            Some(Ok(text)) => Some(text),
            Some(Err(error)) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
            Some(Err(error)) => {
                let name = file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
                return Err(error).during(format!("read {name}"));
            }
        };
        let name = named.as_ref().map_or_else(|| "autopack.toml".to_owned(), |path| path.display().to_string());
        let file = text.as_deref().map(|text| (text, name.as_str()));
        Settings::resolve(file, &self.env, &self.flags()).map_err(|error| {
            let fix = "autopack config show lists every setting";
            CliError::invalid("the settings cannot be used", error.to_string(), fix)
        })
    }

    /// Settings that flags gave.
    fn flags(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let pairs = [
            ("server", self.global.server.clone()),
            ("token_file", path(&self.global.token_file)),
            ("data_dir", path(&self.global.data_dir)),
        ];
        pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).chain(self.flags.clone()).collect()
    }
}
