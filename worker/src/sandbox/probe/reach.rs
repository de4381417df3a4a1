//! Attempts on what else the host has: its network, its listeners, its processes and its queues.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::{Aims, Attempt, every, reached};
use crate::sys;

/// Names and attempts.
pub(super) const ATTEMPTS: &[(&str, Attempt)] = &[
    ("tcp_host", |aims| tcp([([127, 0, 0, 1], aims.tcp).into()])),
    ("tcp_metadata", |_| tcp([([169, 254, 169, 254], 80).into(), ([1, 1, 1, 1], 443).into()])),
    ("udp_host", udp),
    ("unix_path", |aims| reached(UnixStream::connect(&aims.socket), "connected to a listener by its path")),
    ("unix_abstract", hidden),
    ("other_families", families),
    ("network_devices", network),
    ("signal_worker", |aims| {
        reached(kill(Pid::from_raw(aims.worker), None).map_err(io::Error::from), "reached the worker")
    }),
    ("see_processes", processes),
    ("shared_memory", shared_memory),
    ("host_namespaces", namespaces),
];

fn tcp<const N: usize>(addresses: [SocketAddr; N]) -> Result<String, String> {
    every(
        addresses.map(|to| {
            reached(TcpStream::connect_timeout(&to, Duration::from_millis(300)), &format!("connected to {to}"))
        }),
    )
}

/// Whether it arrived only the worker knows; here it is enough that there is nowhere to go.
fn udp(aims: &Aims) -> Result<String, String> {
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let sent = socket.send_to(aims.mark.as_bytes(), ("127.0.0.1", aims.udp));
    // On a loopback of its own this is sent to nobody.
    Err(sent.map_or_else(|e| e.to_string(), |_| "sent on a loopback of its own".to_owned()))
}

fn hidden(aims: &Aims) -> Result<String, String> {
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&aims.hidden).map_err(|e| e.to_string())?;
    reached(UnixStream::connect_addr(&address), "connected to a listener by its abstract name")
}

/// Netlink, packet, vsock, kernel crypto, and Bluetooth.
fn families(_: &Aims) -> Result<String, String> {
    let of = |family: i64| {
        let made = sys::call(libc::SYS_socket, [family, libc::SOCK_RAW.into(), 0, 0, 0]);
        reached(made, &format!("made a socket of family {family}"))
    };
    every([16, 17, 40, 38, 31].map(of))
}

fn network(_: &Aims) -> Result<String, String> {
    let text = fs::read_to_string("/proc/self/net/dev").map_err(|e| e.to_string())?;
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    let strange: Vec<&str> = names.into_iter().filter(|name| !is_idle(name)).collect();
    if strange.is_empty() { Err("only lo".to_owned()) } else { Ok(format!("sees {}", strange.join(" "))) }
}

/// The loopback, and what the kernel puts into every namespace.
fn is_idle(name: &str) -> bool {
    ["lo", "tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6gre0"].contains(&name)
}

fn processes(aims: &Aims) -> Result<String, String> {
    let there = fs::read_dir("/proc").map_err(|e| e.to_string())?.flatten();
    let there: Vec<i32> = there.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    if there.contains(&aims.worker) || there.len() > 8 {
        Ok(format!("sees {} processes", there.len()))
    } else {
        Err(format!("sees {} of its own", there.len()))
    }
}

fn shared_memory(aims: &Aims) -> Result<String, String> {
    reached(sys::call(libc::SYS_shmget, [aims.shared_memory, 0, 0, 0, 0]), "found shared memory of the host")
}

fn namespaces(aims: &Aims) -> Result<String, String> {
    let same = |(name, number): &&(String, u64)| {
        fs::metadata(format!("/proc/self/ns/{name}")).is_ok_and(|there| there.ino() == *number)
    };
    let same: Vec<&str> = aims.namespaces.iter().filter(same).map(|(name, _)| name.as_str()).collect();
    if same.is_empty() { Err("all are its own".to_owned()) } else { Ok(format!("shares {}", same.join(" "))) }
}
