//! A network that exists only for a test: places with an address each, joined by a bridge, and pairs of them that can be
//! cut. A cut loses every packet between the two without a word to either, as a broken switch does: each has the wrong
//! hardware address of the other. All of it is in network namespaces that end with the test, however that ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

use crate::harness::ran;

/// What to do where a test may not make networks.
const DENIED: &str = "this test makes network namespaces and needs the rights for it: run it as root, in a container \
                      with --cap-add=SYS_ADMIN --cap-add=NET_ADMIN";
/// What to do where the tools are missing.
const MISSING: &str = "ip is not installed: apt-get install -y --no-install-recommends iproute2 (scripts/test does it)";
/// An address that no interface has.
const NOWHERE: &str = "02:00:00:00:00:99";

/// The network. The thread that made it is in the middle of it, and reaches every place.
pub(super) struct Net {
    middle: File,
    places: BTreeMap<String, Place>,
}

struct Place {
    address: String,
    space: File,
}

impl Net {
    /// Makes an empty one, and moves this thread into it: what it starts from now on is in there too.
    pub(super) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect(DENIED);
        ip(&["link", "set", "lo", "up"]);
        ip(&["link", "add", "br0", "type", "bridge"]);
        ip(&["addr", "add", "10.99.0.1/24", "dev", "br0"]);
        ip(&["link", "set", "br0", "up"]);
        Self { middle: here(), places: BTreeMap::new() }
    }

    /// Adds a place.
    pub(super) fn add(&mut self, name: &str) {
        let address = format!("10.99.0.{}", self.places.len() + 11);
        unshare(CloneFlags::CLONE_NEWNET).expect(DENIED);
        let space = here();
        enter(&self.middle);
        let path = format!("/proc/{}/fd/{}", std::process::id(), space.as_raw_fd());
        let wire = format!("v-{name}");
        ip(&["link", "add", &wire, "type", "veth", "peer", "name", "eth0", "netns", &path]);
        ip(&["link", "set", &wire, "master", "br0", "up"]);
        self.places.insert(name.to_owned(), Place { address: address.clone(), space });
        self.inside(name, || {
            ip(&["link", "set", "lo", "up"]);
            ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"]);
            ip(&["link", "set", "eth0", "up"]);
        });
    }

    /// Where a place is reached.
    pub(super) fn address(&self, name: &str) -> &str {
        &self.places[name].address
    }

    /// Does something in a place: what it starts stays there.
    pub(super) fn inside<T>(&self, name: &str, work: impl FnOnce() -> T) -> T {
        enter(&self.places[name].space);
        let done = work();
        enter(&self.middle);
        done
    }

    /// From now on, nothing passes between two places.
    pub(super) fn cut(&self, one: &str, other: &str) {
        for (here, there) in [(one, other), (other, one)] {
            let there = self.address(there);
            let lost = ["neigh", "replace", there, "lladdr", NOWHERE, "nud", "permanent", "dev", "eth0"];
            self.inside(here, || ip(&lost));
        }
    }

    /// Everything passes again.
    pub(super) fn heal(&self, one: &str, other: &str) {
        for (here, there) in [(one, other), (other, one)] {
            let there = self.address(there);
            self.inside(here, || ip(&["neigh", "del", there, "dev", "eth0"]));
        }
    }
}

/// The network namespace of this thread.
fn here() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

fn enter(space: &File) {
    setns(space, CloneFlags::CLONE_NEWNET).expect(DENIED);
}

fn ip(args: &[&str]) {
    let mut command = Command::new("ip");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let output = command.env("PATH", format!("{}:/usr/sbin:/sbin", path.display())).args(args).output().expect(MISSING);
    let done = ran(&output);
    assert!(done.code == 0, "ip {args:?}: {} ({DENIED})", done.stderr);
}
