//! Throwaway services: one PostgreSQL server and one etcd member, on free ports, durable as in production.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::guard::{Guarded, Way};
use crate::context::Context;
use crate::exit::{CliError, During as _};

/// Connections of the server: two crowds of 64, and a supervisor.
const CONNECTIONS: &str = "max_connections=300";

/// A PostgreSQL server.
#[derive(Debug)]
pub(super) struct Postgres {
    // Ends before its folder goes.
    _server: Guarded,
    port: u16,
    _folder: TempDir,
}

impl Postgres {
    /// Starts one below a folder, and waits until it takes connections.
    pub(super) async fn start(ctx: &Context, dir: Option<&Path>) -> Result<Self, CliError> {
        let programs = postgres_programs(ctx)?;
        let folder = scratch(dir, "autopack-bench-pg-")?;
        let owner = owner()?;
        if let Some((user, group)) = owner {
            chown(folder.path(), Some(user), Some(group)).during("give PostgreSQL its folder")?;
        }
        let data = folder.path().join("data");
        let mut init = Command::new(programs.join("initdb"));
        init.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]);
        init.args(["--no-sync", "--no-instructions"]).current_dir("/").stdin(Stdio::null());
        if let Some((user, group)) = owner {
            init.uid(user).gid(group);
        }
        let made = init.output().during("run initdb")?;
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr).trim().replace('\n', " / ");
            let fix = "name another folder with --dir; the user postgres has to reach it";
            return Err(CliError::refused("unavailable", "PostgreSQL's folder could not be made", why, fix));
        }
        let port = free_port()?;
        let (text, host) = (port.to_string(), folder.path().display().to_string());
        let place = data.display().to_string();
        let args = ["-D", &place, "-k", &host, "-h", "127.0.0.1", "-p", &text, "-c", CONNECTIONS];
        let way = Way { owner, signal: "QUIT", ..Way::default() };
        let log = folder.path().join("log");
        let server = Guarded::start("PostgreSQL", &programs.join("postgres"), args, &log, &way)?;
        let state = data.join("postmaster.pid");
        // What pg_ctl -w waits for, in its eighth line.
        let ready =
            || std::fs::read_to_string(&state).is_ok_and(|told| told.lines().nth(7).map(str::trim) == Some("ready"));
        server.until(async || ready()).await?;
        Ok(Self { _server: server, port, _folder: folder })
    }

    /// Where a database of it is.
    pub(super) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

/// An etcd of one member.
#[derive(Debug)]
pub(super) struct Etcd {
    _server: Guarded,
    url: String,
    _folder: TempDir,
}

impl Etcd {
    /// Starts one below a folder, and waits until it answers.
    pub(super) async fn start(ctx: &Context, dir: Option<&Path>) -> Result<Self, CliError> {
        let program = etcd_program(ctx)?;
        let folder = scratch(dir, "autopack-bench-etcd-")?;
        let (client, peer) = (free_port()?, free_port()?);
        let (url, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let data = folder.path().join("data").display().to_string();
        let members = format!("n0={peer}");
        let args = [
            "--name",
            "n0",
            "--data-dir",
            &data,
            "--logger",
            "zap",
            "--log-level",
            "warn",
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &members,
            "--initial-cluster-state",
            "new",
        ];
        let way = Way { signal: "KILL", ..Way::default() };
        let server = Guarded::start("etcd", &program, args, &folder.path().join("log"), &way)?;
        server.until(async || is_healthy(client).await).await?;
        Ok(Self { _server: server, url, _folder: folder })
    }

    /// Where clients ask.
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

async fn is_healthy(port: u16) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.contains(r#""health":"true""#))
    };
    tokio::time::timeout(std::time::Duration::from_secs(2), ask).await.is_ok_and(|answer| answer.unwrap_or(false))
}

/// A folder of its own, in the one that is named or where temporary files are.
pub(super) fn scratch(dir: Option<&Path>, prefix: &str) -> Result<TempDir, CliError> {
    let mut builder = tempfile::Builder::new();
    let made = match dir {
        Some(dir) => builder.prefix(prefix).tempdir_in(dir),
        None => builder.prefix(prefix).tempdir(),
    };
    made.during("make a folder for the benchmark")
}

/// A port that is free now.
pub(super) fn free_port() -> Result<u16, CliError> {
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|held| held.local_addr());
    Ok(held.during("find a free port")?.port())
}

fn missing(what: &str, package: &str, variable: &str) -> CliError {
    let fix = format!("apt-get install -y --no-install-recommends {package}, or set {variable}");
    CliError::refused("unavailable", format!("{what} is not installed"), "bench starts its services itself", fix)
}

/// The folder with the programs of a server: `AUTOPACK_PG_BIN`, the newest of Debian's, the `PATH`.
fn postgres_programs(ctx: &Context) -> Result<PathBuf, CliError> {
    let has = |folder: &PathBuf| folder.join("postgres").is_file() && folder.join("initdb").is_file();
    let missing = || missing("PostgreSQL", "postgresql", "AUTOPACK_PG_BIN");
    if let Some(named) = ctx.env.get("AUTOPACK_PG_BIN").filter(|named| !named.is_empty()) {
        return Some(PathBuf::from(named)).filter(has).ok_or_else(missing);
    }
    let version = |folder: &PathBuf| folder.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let installed = installed.map(|entry| entry.path().join("bin")).filter(has).max_by_key(version);
    installed.or_else(|| on_path(ctx).find(has)).ok_or_else(missing)
}

fn etcd_program(ctx: &Context) -> Result<PathBuf, CliError> {
    let missing = || missing("etcd", "etcd-server", "AUTOPACK_ETCD_BIN");
    if let Some(named) = ctx.env.get("AUTOPACK_ETCD_BIN").filter(|named| !named.is_empty()) {
        return Some(PathBuf::from(named)).filter(|program| program.is_file()).ok_or_else(missing);
    }
    let mut programs = on_path(ctx).map(|folder| folder.join("etcd"));
    programs.find(|program| program.is_file()).ok_or_else(missing)
}

fn on_path(ctx: &Context) -> impl Iterator<Item = PathBuf> {
    let path = ctx.env.get("PATH").unwrap_or_default().to_owned();
    std::env::split_paths(&path).chain([PathBuf::from("/usr/bin")]).collect::<Vec<_>>().into_iter()
}

/// The user and group a database server runs as, where that is another than whoever asks: it refuses root.
fn owner() -> Result<Option<(u32, u32)>, CliError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").during("read /etc/passwd")?;
    let user = users.lines().find(|line| line.starts_with("postgres:"));
    let user = user.or_else(|| users.lines().find(|line| line.starts_with("nobody:")));
    let ids: Vec<u32> =
        user.into_iter().flat_map(|line| line.split(':').skip(2).take(2)).flat_map(str::parse).collect();
    match ids.as_slice() {
        [user, group] => Ok(Some((*user, *group))),
        _ => Err(missing("a user that PostgreSQL can run as", "postgresql", "AUTOPACK_PG_BIN")),
    }
}
