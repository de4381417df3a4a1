//! Throwaway etcd clusters: on free ports, in a folder of their own, gone when the test process is, however that ends.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Ends a server when its standard input ends: a pipe from this process, which the kernel closes even if it was killed.
/// A death signal would not do: it is tied to the thread, and that ends with each test.
const GUARD: &str = r#""$@" </dev/null & p=$!; echo $p; exec >/dev/null; cat >/dev/null; kill -KILL $p; wait $p"#;

/// How long a cluster may take to be ready, on a machine that does much else.
const READY: Duration = Duration::from_secs(30);

/// Some etcd members that know each other.
pub(crate) struct Etcd {
    host: String,
    dir: TempDir,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    client: u16,
    peer: u16,
    running: Option<Running>,
}

/// A server and its guard.
struct Running {
    guard: Child,
    input: Option<ChildStdin>,
    server: Pid,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.input.take());
        self.guard.wait().unwrap();
    }
}

impl Etcd {
    /// Starts one member, or three, and waits until they answer.
    pub(crate) fn start(members: usize) -> Self {
        Self::start_at(members, "127.0.0.1")
    }

    /// The same at an address of this machine.
    pub(crate) fn start_at(members: usize, host: &str) -> Self {
        // Somebody may take a free port between asking for it and using it; then all of it is tried again.
        for _ in 0..5 {
            let mut cluster = Self::prepare(members, host);
            for node in 0..members {
                cluster.resume(node);
            }
            if cluster.ready() {
                return cluster;
            }
        }
        panic!("no etcd cluster could be started");
    }

    fn prepare(members: usize, host: &str) -> Self {
        // All are held until all are known, so that they differ.
        let held: Vec<TcpListener> = (0..members * 2).map(|_| TcpListener::bind((host, 0)).unwrap()).collect();
        let port = |at: usize| held[at].local_addr().unwrap().port();
        let node =
            |at: usize| Node { name: format!("n{at}"), client: port(at * 2), peer: port(at * 2 + 1), running: None };
        let nodes = (0..members).map(node).collect();
        Self { host: host.to_owned(), dir: tempfile::tempdir().unwrap(), nodes }
    }

    /// Where clients ask.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("http://{}:{}", self.host, node.client)).collect()
    }

    /// The port of a member's clients.
    pub(crate) fn port(&self, node: usize) -> u16 {
        self.nodes[node].client
    }

    /// Ends a member at once, without a word.
    pub(crate) fn end(&mut self, node: usize) {
        drop(self.nodes[node].running.take());
    }

    /// Starts a member, or one that ended, on what it has stored.
    pub(crate) fn resume(&mut self, node: usize) {
        let host = &self.host;
        let peers: Vec<String> = self.nodes.iter().map(|n| format!("{}=http://{host}:{}", n.name, n.peer)).collect();
        let Node { name, client, peer, .. } = &self.nodes[node];
        let (client, peer) = (format!("http://{host}:{client}"), format!("http://{host}:{peer}"));
        let log = File::options().create(true).append(true).open(self.dir.path().join(format!("{name}.log"))).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh"]).arg(program()).args(["--name", name]);
        command.arg("--data-dir").arg(self.dir.path().join(name));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &peers.join(","), "--initial-cluster-state", "new"]);
        command.args(["--heartbeat-interval", "50", "--election-timeout", "500"]);
        command.args(["--logger", "zap", "--log-level", "warn"]);
        let mut guard = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let server = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        let input = guard.stdin.take();
        self.nodes[node].running = Some(Running { guard, input, server });
    }

    /// Writes down the whole state of a cluster of one, as a backup does.
    pub(crate) fn snapshot(&self, file: &Path) {
        let mut save = etcdctl();
        save.arg("--endpoints").arg(&self.endpoints()[0]).args(["snapshot", "save"]).arg(file);
        assert!(save.output().unwrap().status.success(), "no snapshot");
    }

    /// Puts an older state in the place of what a cluster of one has stored; it must have ended.
    pub(crate) fn restore(&self, file: &Path) {
        let Node { name, peer, running, .. } = &self.nodes[0];
        assert!(running.is_none());
        let data = self.dir.path().join(name);
        std::fs::remove_dir_all(&data).unwrap();
        let peer = format!("http://{}:{peer}", self.host);
        let mut restore = etcdctl();
        restore.args(["snapshot", "restore"]).arg(file).arg("--data-dir").arg(&data).args(["--name", name]);
        restore.args(["--initial-cluster", &format!("{name}={peer}"), "--initial-advertise-peer-urls", &peer]);
        // Another cluster, as etcd's own manual has it: whoever was in the old one is in none.
        restore.args(["--initial-cluster-token", "restored"]);
        let done = restore.output().unwrap();
        assert!(done.status.success(), "not restored: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Stops a member in its tracks: it keeps its connections and answers nobody.
    pub(crate) fn freeze(&self, node: usize) {
        let server = self.signal(node, Signal::STOP);
        // The signal is taken when each thread is next looked at; until then, it may still answer.
        let from = now();
        while !is_stopped(server) {
            assert!(from.elapsed() < READY, "etcd does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets a frozen member go on.
    pub(crate) fn thaw(&self, node: usize) {
        self.signal(node, Signal::CONT);
    }

    fn signal(&self, node: usize, signal: Signal) -> Pid {
        let server = self.nodes[node].running.as_ref().unwrap().server;
        kill_process(server, signal).unwrap();
        server
    }

    /// The member that leads the others.
    pub(crate) fn leader(&self) -> usize {
        let leads = |node: &usize| {
            let status = self.ask(*node, "POST", "/v3/maintenance/status", "{}");
            let status: Value = serde_json::from_str(&status.unwrap_or_default()).unwrap_or_default();
            status["leader"].is_string() && status["leader"] == status["header"]["member_id"]
        };
        let from = now();
        while from.elapsed() < READY {
            if let Some(node) = (0..self.nodes.len()).find(leads) {
                return node;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no member leads");
    }

    /// Waits until every member that was started answers; false when one ended instead.
    pub(crate) fn ready(&self) -> bool {
        let from = now();
        loop {
            let ended = |node: &Node| node.running.as_ref().is_some_and(|running| is_gone(running.server));
            if self.nodes.iter().any(ended) {
                return false;
            }
            let healthy = |node: usize| {
                let answer = self.ask(node, "GET", "/health", "").unwrap_or_default();
                self.nodes[node].running.is_none() || answer.contains(r#""health":"true""#)
            };
            if (0..self.nodes.len()).all(healthy) {
                return true;
            }
            assert!(from.elapsed() < READY, "etcd does not get ready: {}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn logs(&self) -> String {
        let log = |node: &Node| std::fs::read_to_string(self.dir.path().join(format!("{}.log", node.name)));
        self.nodes.iter().filter_map(|node| log(node).ok()).collect()
    }

    /// One request over HTTP; none when there is no answer.
    fn ask(&self, node: usize, method: &str, path: &str, body: &str) -> Option<String> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.nodes[node].client)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }
}

/// Whether a process has ended; one that nobody has waited for yet has, too.
fn is_gone(pid: Pid) -> bool {
    matches!(state(&PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()))), None | Some('Z'))
}

/// Whether every thread of a process has stopped.
fn is_stopped(pid: Pid) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap();
    threads.flatten().all(|thread| matches!(state(&thread.path()), None | Some('T')))
}

/// The letter of a process or thread; none when it is gone.
fn state(folder: &Path) -> Option<char> {
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// The server's program: `AUTOPACK_ETCD_BIN`, the `PATH`, `/usr/bin`.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("AUTOPACK_ETCD_BIN") {
        let program = PathBuf::from(named);
        assert!(program.is_file(), "AUTOPACK_ETCD_BIN is no file: {}", program.display());
        return program;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/bin"));
    folders.iter().map(|folder| folder.join("etcd")).find(|program| program.is_file()).expect(
        "etcd is not installed: apt-get install -y --no-install-recommends etcd-server etcd-client \
         (scripts/test does it), or set AUTOPACK_ETCD_BIN",
    )
}

/// The program that keeps and restores what a server has stored; it is beside the server.
fn etcdctl() -> Command {
    let mut command = Command::new(program().with_file_name("etcdctl"));
    command.env("ETCDCTL_API", "3").env("PATH", "/usr/bin:/bin");
    command
}

#[expect(clippy::disallowed_methods, reason = "a deadline of a test, in real time")]
fn now() -> Instant {
    Instant::now()
}
