//! A throwaway PostgreSQL server for tests. It stops, and its folder goes, when the test lets go of it or dies, also by
//! SIGKILL: a shell waits for the end of a pipe that only the test holds open.

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// How often a server that starts is looked at, and how long that may take on a machine that is busy: a minute.
const LOOK: Duration = Duration::from_millis(10);
const LOOKS: u32 = 6_000;
/// What to do where there is none.
const MISSING: &str = "no PostgreSQL server here. Install one (Debian: apt-get install -y --no-install-recommends \
                       postgresql), or name the folder of its programs in AUTOPACK_PG_BIN";
/// Who gets in how, where roles are told apart.
const GUARDED: &str =
    "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
/// Starts the server beside itself, and ends it and its folder when the pipe it reads from ends.
const GUARD: &str = r#"folder=$1; shift; "$@" </dev/null & server=$!; cat >/dev/null; kill -QUIT $server; wait $server
rm -rf "$folder""#;

/// A server with a data directory of its own.
pub(crate) struct Server {
    /// One for each start; the last one has the server that runs.
    guards: Vec<Child>,
    folder: PathBuf,
    host: String,
    port: u16,
    programs: PathBuf,
    settings: Vec<String>,
}

impl Server {
    /// Starts one, with more settings as `name=value`.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_with("127.0.0.1", settings, None)
    }

    /// The same at an address of this machine, for whoever is in its network.
    #[allow(dead_code, reason = "not every suite has networks")]
    pub(crate) fn start_at(host: &str, settings: &[&str]) -> Self {
        Self::start_with(host, settings, None)
    }

    /// Starts one that asks every role but its superuser for a password where it comes over the network.
    #[allow(dead_code, reason = "not every suite has roles")]
    pub(crate) fn start_guarded(settings: &[&str]) -> Self {
        Self::start_with("127.0.0.1", settings, Some(GUARDED))
    }

    fn start_with(host: &str, settings: &[&str], doors: Option<&str>) -> Self {
        let programs = programs().expect(MISSING);
        // Somebody else may take the port between its choice and its use.
        let started = (0..5).find_map(|_| Self::try_start(&programs, host, settings, doors));
        started.expect("the PostgreSQL server does not start")
    }

    fn try_start(programs: &Path, host: &str, settings: &[&str], doors: Option<&str>) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("pg-").tempdir().unwrap().keep();
        if let Some((user, group)) = owner() {
            chown(&folder, Some(user), Some(group)).unwrap();
        }
        let data = folder.join("data");
        let mut init = as_owner(programs.join("initdb"));
        init.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]);
        let made = init.args(["--no-sync", "--no-instructions"]).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));

        let open = || fs::read_to_string(data.join("pg_hba.conf")).unwrap() + "\nhost all all samenet trust\n";
        fs::write(data.join("pg_hba.conf"), doors.map_or_else(open, str::to_owned)).unwrap();

        let port = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port();
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut server = Self {
            guards: Vec::new(),
            folder,
            host: host.to_owned(),
            port,
            programs: programs.to_path_buf(),
            settings,
        };
        server.launch();
        server.is_ready().then_some(server)
    }

    /// Starts the server and its guard on the data that is there.
    fn launch(&mut self) {
        let mut guard = as_owner("/bin/sh");
        guard.args(["-c", GUARD, "sh"]).arg(&self.folder).arg(self.programs.join("postgres"));
        guard.arg("-D").arg(self.folder.join("data"));
        guard.arg("-k").arg(&self.folder).args(["-h", &self.host, "-p", &self.port.to_string()]);
        for setting in &self.settings {
            guard.args(["-c", setting]);
        }
        guard.stdin(Stdio::piped()).stderr(fs::File::create(self.folder.join("log")).unwrap());
        self.guards.push(guard.spawn().unwrap());
    }

    /// Ends it as `pg_ctl restart -m fast` (INT) or `-m immediate` (QUIT) would, and starts it again.
    #[allow(dead_code, reason = "not every suite restarts it")]
    pub(crate) fn restart(&mut self, signal: rustix::process::Signal) {
        self.stop(signal);
        self.resume();
    }

    /// Ends it as `pg_ctl stop -m fast` (INT) or `-m immediate` (QUIT) would; its data stays.
    #[allow(dead_code, reason = "not every suite stops it")]
    pub(crate) fn stop(&self, signal: rustix::process::Signal) {
        let before = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(before, signal).unwrap();
        let state = self.folder.join("data/postmaster.pid");
        let mut looks = (0..LOOKS).inspect(|_| thread::sleep(LOOK));
        assert!(looks.any(|_| !state.exists()), "the PostgreSQL server does not end");
    }

    /// Starts it again on the data that is there.
    #[allow(dead_code, reason = "not every suite stops it")]
    pub(crate) fn resume(&mut self) {
        self.launch();
        // Its log tells of refused clients meanwhile, so only the state counts.
        let mut looks = (0..LOOKS).inspect(|_| thread::sleep(LOOK));
        assert!(looks.any(|_| self.tells_ready()), "the PostgreSQL server is not ready again");
    }

    /// Whether it says what `pg_ctl -w` waits for, in its eighth line.
    fn tells_ready(&self) -> bool {
        let told = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
        told.lines().nth(7).is_some_and(|line| line.trim() == "ready")
    }

    /// Waits until it takes connections; false when it ended instead.
    fn is_ready(&self) -> bool {
        let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        for _ in 0..LOOKS {
            if self.tells_ready() {
                return true;
            }
            if log().contains("FATAL") {
                return false;
            }
            thread::sleep(LOOK);
        }
        panic!("the PostgreSQL server is not ready: {}", log());
    }

    /// Where a database of it is, over its socket.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost:{}/{database}?host={}", self.port, self.folder.display())
    }

    /// What it wrote into its log.
    #[allow(dead_code, reason = "not every suite reads it")]
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }

    /// The address it listens at.
    #[allow(dead_code, reason = "not every suite has more than one")]
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port it listens at there.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub(crate) fn pid(&self) -> i32 {
        let told = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        told.lines().next().unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for guard in self.guards.iter_mut().rev() {
            drop(guard.stdin.take());
            let _ended = guard.wait();
        }
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

/// A program that runs as whoever the server runs as.
fn as_owner(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = owner() {
        command.uid(user).gid(group);
    }
    command.current_dir("/").stdout(Stdio::null()).env_remove("LD_LIBRARY_PATH");
    command
}

/// The folder with the programs of a server.
fn programs() -> Option<PathBuf> {
    let named = std::env::var_os("AUTOPACK_PG_BIN").filter(|name| !name.is_empty()).map(PathBuf::from);
    let has = |folder: &PathBuf| folder.join("postgres").is_file() && folder.join("initdb").is_file();
    if named.is_some() {
        return named.filter(has);
    }
    let version = |folder: &PathBuf| {
        let name = folder.parent()?.file_name()?.to_str()?;
        name.parse::<u32>().ok()
    };
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let installed = installed.map(|entry| entry.path().join("bin")).filter(has);
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    installed.max_by_key(version).or_else(|| std::env::split_paths(&path).find(has))
}

/// The user and group a server runs as, where that is another than whoever runs the tests: it refuses root.
fn owner() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let user = users.lines().find(|line| line.starts_with("postgres:") || line.starts_with("nobody:"));
    let user = users.lines().find(|line| line.starts_with("postgres:")).or(user)?;
    let mut ids = user.split(':').skip(2).map(|id| id.parse().unwrap());
    Some((ids.next()?, ids.next()?))
}
