//! The filter of system calls: what no builder and no gate needs is refused. A call of another architecture, and of the
//! x32 way into this one, ends the process. A strict sandbox lets through only what ordinary tools need.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule, sock_filter,
};

mod allowed;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that are refused whatever they ask.
const REFUSED: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
];

/// Calls that seem not to exist: programs then use the older ones, whose arguments can be looked at.
const UNKNOWN: &[i64] = &[
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_openat2,
];

/// Bits of `clone` that make namespaces.
const NAMESPACES: [i32; 8] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
    0x80, // CLONE_NEWTIME
];

/// `fchmodat2`, which the library does not name yet.
const FCHMODAT2: i64 = 452;

/// What a process may be to other programs: itself, and a 32-bit one.
const PERSONALITIES: [u64; 4] = [0, 8, 0x20000, 0xffff_ffff];

/// Puts this process and all that come from it under the filter.
pub(super) fn apply(strict: bool) -> Result<(), String> {
    let errno = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
    let (let_through, eperm, enosys) = (SeccompAction::Allow, errno(libc::EPERM), errno(libc::ENOSYS));
    let mut programs = Vec::new();
    if strict {
        // First: of two filters that refuse, the kernel hears the later one, which knows better why. What is not on the
        // list seems not to exist, so that programs fall back to what is.
        let listed = allowed::CALLS.iter().map(|number| (*number, Vec::new())).collect();
        programs.push(compiled(listed, enosys.clone(), let_through.clone())?);
    }
    programs.push(compiled(refused()?, let_through.clone(), eperm)?);
    programs.push(compiled(unknown(), let_through, enosys)?);
    for program in programs {
        seccompiler::apply_filter(&program).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn compiled(rules: Rules, otherwise: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, String> {
    let arch = std::env::consts::ARCH.try_into().map_err(|e| format!("{e}"))?;
    let filter = SeccompFilter::new(rules, otherwise, listed, arch).map_err(|e| e.to_string())?;
    let mut program = x32_ends();
    program.extend(TryInto::<BpfProgram>::try_into(filter).map_err(|e: seccompiler::BackendError| e.to_string())?);
    Ok(program)
}

/// Instructions that end a process which calls by x32 numbers: the filter would not know them.
fn x32_ends() -> BpfProgram {
    if !cfg!(target_arch = "x86_64") {
        return Vec::new();
    }
    vec![
        // Load the number; below the bit of x32 skip the next one.
        sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
        sock_filter { code: 0x35, jt: 0, jf: 1, k: 0x4000_0000 },
        sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_PROCESS },
    ]
}

fn unknown() -> Rules {
    UNKNOWN.iter().map(|number| (*number, Vec::new())).collect()
}

fn refused() -> Result<Rules, String> {
    let mut rules: Rules = REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    let bits = |arg: u8, bits: &[u64]| -> Result<Vec<SeccompRule>, String> {
        bits.iter().map(|bit| rule(&[(arg, Op::MaskedEq(*bit), *bit)])).collect()
    };
    let namespaces: Vec<u64> = NAMESPACES.iter().map(|bit| u64::from(bit.unsigned_abs())).collect();
    rules.insert(libc::SYS_clone, bits(0, &namespaces)?);
    // Only unix, inet and inet6.
    let families = || rule(&[1u64, 2, 10].map(|family| (0, Op::Ne, family)));
    rules.insert(libc::SYS_socket, vec![families()?]);
    rules.insert(libc::SYS_socketpair, vec![families()?]);
    // TIOCSTI, TIOCLINUX, TIOCCONS.
    let requests = [0x5412u64, 0x541c, 0x541d];
    let requests: Result<_, String> = requests.iter().map(|request| rule(&[(1, Op::Eq, *request)])).collect();
    rules.insert(libc::SYS_ioctl, requests?);
    rules.insert(libc::SYS_personality, vec![rule(&PERSONALITIES.map(|known| (0, Op::Ne, known)))?]);
    // Limits of others, PID 1 above all.
    rules.insert(libc::SYS_prlimit64, vec![rule(&[(0, Op::Ne, 0)])?]);
    // Set-id bits: on disk the files are the worker's.
    let set_id = [0o4000u64, 0o2000];
    for (number, arg) in [(libc::SYS_fchmod, 1), (libc::SYS_fchmodat, 2), (FCHMODAT2, 2)] {
        rules.insert(number, bits(arg, &set_id)?);
    }
    rules.insert(libc::SYS_openat, made_with(&set_id, 2)?);
    #[cfg(target_arch = "x86_64")]
    {
        rules.insert(libc::SYS_open, made_with(&set_id, 1)?);
        rules.insert(libc::SYS_chmod, bits(1, &set_id)?);
        rules.insert(libc::SYS_creat, bits(1, &set_id)?);
    }
    // Pipes and plain files can be made as nodes; devices not.
    rules.insert(libc::SYS_mknodat, devices(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, devices(1)?);
    Ok(rules)
}

/// Refuses to make a file with one of these bits; without `O_CREAT` the mode means nothing.
fn made_with(bits: &[u64], flags: u8) -> Result<Vec<SeccompRule>, String> {
    let create = u64::from(libc::O_CREAT.unsigned_abs());
    let of = |bit: &u64| rule(&[(flags, Op::MaskedEq(create), create), (flags + 1, Op::MaskedEq(*bit), *bit)]);
    bits.iter().map(of).collect()
}

/// Refuses block and character devices and set-id bits.
fn devices(arg: u8) -> Result<Vec<SeccompRule>, String> {
    let kind = u64::from(libc::S_IFMT);
    let of = |wanted: u32| rule(&[(arg, Op::MaskedEq(kind), u64::from(wanted))]);
    Ok(vec![
        of(libc::S_IFBLK)?,
        of(libc::S_IFCHR)?,
        rule(&[(arg, Op::MaskedEq(0o4000), 0o4000)])?,
        rule(&[(arg, Op::MaskedEq(0o2000), 0o2000)])?,
    ])
}

/// Refuses a call for which every condition holds.
fn rule(conditions: &[(u8, Op, u64)]) -> Result<SeccompRule, String> {
    let conditions: Result<Vec<_>, _> =
        conditions.iter().map(|(arg, op, value)| Condition::new(*arg, Len::Dword, op.clone(), *value)).collect();
    SeccompRule::new(conditions.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}
