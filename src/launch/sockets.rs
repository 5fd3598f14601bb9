//! Which sockets a child process may have, so that it stands in for nobody: a port that somebody else is expected on, and is not
//! there for a moment, stays free.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;

use landlock::{
    AccessFs, AccessNet, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError,
};
use nix::errno::Errno;
use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// From here on TCP sockets are bound to ports of the kernel's choosing alone, and there are no others that take TCP connections.
pub(super) fn bind_to_no_port_of_others() -> Result<(), String> {
    let failed = |error: &dyn Display| error.to_string();
    let root = PathFd::new("/").map_err(|error| failed(&error))?;
    confine_ports(root).map_err(|error| failed(&error))?;
    // A processor that the library does not know has no filter.
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(()) };
    for (errno, rules) in [(Errno::EAFNOSUPPORT, strange_families()), (Errno::EPROTONOSUPPORT, strange_protocols())] {
        let rules = rules.map_err(|error| failed(&error))?;
        apply(libc::SYS_socket, &rules, errno, arch)?;
    }
    // A ring makes sockets without a system call for each. Programs that would use one find that this kernel has none.
    apply(libc::SYS_io_uring_setup, &[], Errno::ENOSYS, arch)
}

/// Port 0 stands for one that the kernel picks. Kernels before 6.7 cannot, and all hold nothing but plain TCP sockets to it.
///
/// Files move between directories only if every layer of rules lets them, so this one does, everywhere below `root`.
fn confine_ports(root: PathFd) -> Result<(), RulesetError> {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let ruleset = ruleset.handle_access(AccessNet::BindTcp)?.handle_access(AccessFs::Refer)?.create()?;
    let ruleset = ruleset.add_rule(NetPort::new(0, AccessNet::BindTcp))?;
    ruleset.add_rule(PathBeneath::new(root, AccessFs::Refer))?.restrict_self().map(drop)
}

/// The arguments of `socket`.
const FAMILY: u8 = 0;
const PROTOCOL: u8 = 2;

/// What programs use: some others take TCP connections as well (SMC), or lead out of a virtual machine (VSOCK).
fn strange_families() -> Result<Vec<SeccompRule>, BackendError> {
    let usual = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    Ok(vec![SeccompRule::new(
        usual.map(|family| is(FAMILY, SeccompCmpOp::Ne, family)).into_iter().collect::<Result<_, _>>()?,
    )?])
}

/// Multipath TCP and SMC are asked for as protocols, and take ordinary connections at TCP's ports.
fn strange_protocols() -> Result<Vec<SeccompRule>, BackendError> {
    let usual = [libc::IPPROTO_IP, libc::IPPROTO_ICMP, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMPV6];
    let rule = |family| {
        let of_family = std::iter::once(is(FAMILY, SeccompCmpOp::Eq, family));
        let strange = usual.into_iter().map(|protocol| is(PROTOCOL, SeccompCmpOp::Ne, protocol));
        SeccompRule::new(of_family.chain(strange).collect::<Result<_, _>>()?)
    };
    [libc::AF_INET, libc::AF_INET6].into_iter().map(rule).collect()
}

fn is(argument: u8, operator: SeccompCmpOp, value: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value.unsigned_abs()))
}

/// From here on the call fails with `errno` where a rule says so, or always without rules. Programs for another architecture than
/// this one's (32 bits) number their calls otherwise, and are ended.
fn apply(call: i64, rules: &[SeccompRule], errno: Errno, arch: TargetArch) -> Result<(), String> {
    // The same call in programs that use 64-bit registers and 32-bit addresses.
    const X32: i64 = 0x4000_0000;
    let x32 = matches!(arch, TargetArch::x86_64).then_some(call | X32);
    let numbers = std::iter::once(call).chain(x32);
    let rules: BTreeMap<i64, Vec<SeccompRule>> = numbers.map(|number| (number, rules.to_vec())).collect();
    let fails = SeccompAction::Errno((errno as i32).unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, fails, arch).and_then(BpfProgram::try_from);
    let filter = filter.map_err(|error| error.to_string())?;
    match seccompiler::apply_filter(&filter) {
        // This kernel has no filters, or one around us forbids further ones: that is nothing that the process could change.
        Err(seccompiler::Error::Seccomp(error)) if is_missing(&error) => Ok(()),
        done => done.map_err(|error| error.to_string()),
    }
}

fn is_missing(error: &io::Error) -> bool {
    [Errno::ENOSYS, Errno::EINVAL, Errno::EPERM].iter().any(|missing| error.raw_os_error() == Some(*missing as i32))
}
