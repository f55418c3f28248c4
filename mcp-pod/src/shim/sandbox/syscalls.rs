//! Compiles the table in [`deny`](super::deny) to BPF and installs it, with a filter that sends some calls to the
//! [`monitor`].
//!
//! A filter of the `seccompiler` crate has the same result for all its rows, so there is one filter per errno. The kernel
//! runs all of them. A denial wins over the monitor, and the monitor over an allowance (seccomp(2)); a filter that the
//! command installs itself cannot change that. The kernel also caches which calls are allowed with any arguments, so that
//! for most calls no filter runs at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};

use super::deny::{Argument, FIRST_UNKNOWN, Row, rows};
use super::{monitor, sys};

/// The BPF instruction that ends a program with an action.
const RETURN: u16 = 0x06;

/// Why the filter could not be installed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SyscallsError {
    #[error("failed to compile the filter")]
    Compile(#[from] BackendError),
    #[error("the compiled filter does not have the expected form")]
    Shape,
    #[error("failed to load the filter into the kernel")]
    Apply(#[from] seccompiler::Error),
    #[error("failed to load the monitored filter into the kernel")]
    Listener(#[source] io::Error),
}

/// Installs the filters on this thread and all its future children, for a command that serves HTTP or for any other one. They
/// cannot be removed. Returns the listener for the monitored calls.
pub(super) fn install(serves: bool) -> Result<OwnedFd, SyscallsError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let errnos: BTreeSet<i32> = rows(serves).map(|row| row.errno).collect();
    for errno in errnos {
        apply_filter(&program(errno, serves, arch)?)?;
    }
    sys::install_with_listener(&monitored_program(serves, arch)?).map_err(SyscallsError::Listener)
}

fn program(errno: i32, serves: bool, arch: TargetArch) -> Result<BpfProgram, SyscallsError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for row in rows(serves).filter(|row| row.errno == errno) {
        rules.insert(row.call, alternatives(row)?);
    }
    let deny = SeccompAction::Errno(errno.cast_unsigned());
    let program = SeccompFilter::new(rules, SeccompAction::Allow, deny, arch)?.try_into()?;
    deny_unknown_calls(program)
}

/// Returns the filter that sends calls to the monitor. The crate has no such action, so its program is compiled with
/// another one, which is then replaced.
fn monitored_program(serves: bool, arch: TargetArch) -> Result<BpfProgram, SyscallsError> {
    let rules = monitor::calls(serves).map(|call| (call, Vec::new())).collect();
    let program = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trace(0), arch)?.try_into()?;
    let mut program = deny_unknown_calls(program)?;
    let mut replaced = 0;
    for action in program.iter_mut().filter(|line| line.code == RETURN && line.k == libc::SECCOMP_RET_TRACE) {
        action.k = libc::SECCOMP_RET_USER_NOTIF;
        replaced += 1;
    }
    if replaced == 0 { Err(SyscallsError::Shape) } else { Ok(program) }
}

/// Returns the rules of a row. The filter applies if any of them matches, or if there is none.
fn alternatives(row: &Row) -> Result<Vec<SeccompRule>, BackendError> {
    let condition = |argument: &Argument| {
        let word = SeccompCmpArgLen::Dword;
        match *argument {
            Argument::Is(index, value) => SeccompCondition::new(index, word, SeccompCmpOp::Eq, value.into()),
            Argument::IsNot(index, value) => SeccompCondition::new(index, word, SeccompCmpOp::Ne, value.into()),
            Argument::Bits { index, mask, value } => {
                SeccompCondition::new(index, word, SeccompCmpOp::MaskedEq(mask.into()), value.into())
            }
            Argument::NotNull(index) => SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0),
        }
    };
    row.when.iter().map(|all| SeccompRule::new(all.iter().map(condition).collect::<Result<_, _>>()?)).collect()
}

/// Makes calls of other architectures, and calls from [`FIRST_UNKNOWN`] on, return ENOSYS.
///
/// The compiled program starts by loading the architecture, killing the process if it is another one, and loading the
/// number of the call. The kill is replaced with an errno, and a check of the number is inserted after the load. All
/// jumps in BPF are relative and forward, so inserting instructions there is safe.
fn deny_unknown_calls(mut program: BpfProgram) -> Result<BpfProgram, SyscallsError> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_GREATER_EQUAL: u16 = 0x35;
    let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

    let kill = sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_PROCESS };
    let load_number = sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: 0 };
    if program.get(2) != Some(&kill) || program.get(3) != Some(&load_number) {
        return Err(SyscallsError::Shape);
    }
    let deny = sock_filter { code: RETURN, jt: 0, jf: 0, k: enosys };
    let skip_if_known = sock_filter { code: JUMP_GREATER_EQUAL, jt: 0, jf: 1, k: FIRST_UNKNOWN };
    program.splice(2..4, [deny.clone(), load_number, skip_if_known, deny]);
    Ok(program)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_row_has_a_reason_and_a_different_call() {
        for serves in [false, true] {
            let calls: BTreeSet<_> = rows(serves).map(|row| row.call).collect();
            assert_eq!(calls.len(), rows(serves).count());
            for row in rows(serves) {
                assert!(!row.why.is_empty());
                assert!(u32::try_from(row.call).unwrap() < FIRST_UNKNOWN, "{row:?} is not below FIRST_UNKNOWN");
            }
        }
    }

    #[test]
    fn the_table_compiles_for_both_architectures() {
        for (arch, serves) in
            [TargetArch::x86_64, TargetArch::aarch64].map(|arch| [(arch, false), (arch, true)]).as_flattened()
        {
            let (arch, serves) = (*arch, *serves);
            for errno in [libc::EPERM, libc::ENOSYS, libc::EAFNOSUPPORT] {
                assert!(program(errno, serves, arch).unwrap().len() < 4096);
            }
            let monitored = monitored_program(serves, arch).unwrap();
            let actions: BTreeSet<_> = monitored.iter().filter(|line| line.code == RETURN).map(|line| line.k).collect();
            let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
            assert_eq!(actions, [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_USER_NOTIF, enosys].into());
        }
    }
}
