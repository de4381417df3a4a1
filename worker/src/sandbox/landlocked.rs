//! The Landlock rules: what is readable, what is writable, and everything else not. They hold even where a mount or a
//! namespace is missing by mistake.

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

use super::spec::Inner;
use crate::sys;

/// The oldest version that counts.
pub(crate) const FLOOR: i32 = 4;
/// The newest version whose rights this program knows the meaning of.
const NEWEST: i32 = 6;

/// Devices that can be written, and asked by `ioctl`.
const DEVICES: [&str; 8] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts"];

/// The version that this kernel has; 0 for none.
pub(crate) fn probe() -> i32 {
    // Asks for the version: no attributes, no size, one flag.
    let version = sys::call(libc::SYS_landlock_create_ruleset, [0, 0, 1, 0, 0]).unwrap_or(0);
    i32::try_from(version).unwrap_or(0)
}

/// Puts this process and all that come from it under the rules.
pub(super) fn apply(inner: &Inner) -> Result<(), String> {
    if inner.landlock_abi < FLOOR {
        return Err(format!("Landlock {} is older than {FLOOR}", inner.landlock_abi));
    }
    let abi = match inner.landlock_abi.min(NEWEST) {
        4 => ABI::V4,
        5 => ABI::V5,
        _ => ABI::V6,
    };
    let every = AccessFs::from_all(abi);
    let read = AccessFs::from_read(abi);
    let mut rules =
        Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(every).map_err(text)?;
    if inner.tcp.is_some() {
        rules = rules.handle_access(AccessNet::from_all(abi)).map_err(text)?;
    }
    if abi >= ABI::V6 {
        rules = rules.scope(Scope::from_all(abi)).map_err(text)?;
    }
    let mut rules = rules.create().map_err(text)?;
    let mut allow = |paths: &[PathBuf], access: BitFlags<AccessFs>| -> Result<(), String> {
        for path in paths {
            let fd = PathFd::new(path).map_err(text)?;
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(abi) };
            (&mut rules).add_rule(PathBeneath::new(fd, access)).map_err(text)?;
        }
        Ok(())
    };
    allow(&inner.readable, read)?;
    allow(&inner.writable, every)?;
    let devices: Vec<PathBuf> = DEVICES.iter().map(PathBuf::from).filter(|path| path.exists()).collect();
    let mut device = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile;
    if abi >= ABI::V5 {
        device |= AccessFs::IoctlDev;
    }
    allow(&devices, device)?;
    for port in inner.tcp.iter().flatten() {
        (&mut rules).add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(text)?;
    }
    let status = rules.restrict_self().map_err(text)?;
    // Anything less than all of it counts as nothing.
    if status.ruleset == RulesetStatus::FullyEnforced { Ok(()) } else { Err(format!("only {:?}", status.ruleset)) }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
