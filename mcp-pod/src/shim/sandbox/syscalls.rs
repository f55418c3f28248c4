//! Compiles [`deny`](super::deny) to BPF and installs it.
//!
//! A filter of the `seccompiler` crate has one answer for all its rows, so there is one filter for each errno; the
//! kernel asks them all and takes the first that denies. It also remembers which calls are allowed whatever their
//! arguments, so that common ones run no filter at all.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};

use super::deny::{Argument, FIRST_UNKNOWN, ROWS, Row};

/// Why the filter could not be installed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SyscallsError {
    #[error("failed to compile it")]
    Compile(#[from] BackendError),
    #[error("failed to recognise the compiled form")]
    Shape,
    #[error("failed to hand it to the kernel")]
    Apply(#[from] seccompiler::Error),
}

/// Installs the filters on this thread and all its future children, for ever.
pub(super) fn install() -> Result<(), SyscallsError> {
    for program in programs()? {
        apply_filter(&program)?;
    }
    Ok(())
}

fn programs() -> Result<Vec<BpfProgram>, SyscallsError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let errnos: BTreeSet<i32> = ROWS.iter().map(|row| row.errno).collect();
    errnos.into_iter().map(|errno| program(errno, arch)).collect()
}

fn program(errno: i32, arch: TargetArch) -> Result<BpfProgram, SyscallsError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for row in ROWS.iter().filter(|row| row.errno == errno) {
        rules.insert(row.call, chain(row)?);
    }
    let deny = SeccompAction::Errno(errno.cast_unsigned());
    let program = SeccompFilter::new(rules, SeccompAction::Allow, deny, arch)?.try_into()?;
    close_side_doors(program)
}

fn chain(row: &Row) -> Result<Vec<SeccompRule>, BackendError> {
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

/// The compiled program starts with: load the architecture; if it is not ours, kill; load the call's number. The kill
/// becomes an errno, as for everything else, and after the load every number past [`FIRST_UNKNOWN`] is answered
/// ENOSYS. All jumps of BPF are relative and forward, so that inserting behind the last of those three is safe.
fn close_side_doors(mut program: BpfProgram) -> Result<BpfProgram, SyscallsError> {
    const RETURN: u16 = 0x06;
    const LOAD_WORD: u16 = 0x20;
    const JUMP_GREATER_EQUAL: u16 = 0x35;
    let not_there = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

    let kill = sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_PROCESS };
    let load_number = sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: 0 };
    if program.get(2) != Some(&kill) || program.get(3) != Some(&load_number) {
        return Err(SyscallsError::Shape);
    }
    let answer = sock_filter { code: RETURN, jt: 0, jf: 0, k: not_there };
    let unless_known = sock_filter { code: JUMP_GREATER_EQUAL, jt: 0, jf: 1, k: FIRST_UNKNOWN };
    program.splice(2..4, [answer.clone(), load_number, unless_known, answer]);
    Ok(program)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_row_has_a_reason_and_a_call_of_its_own() {
        let calls: BTreeSet<_> = ROWS.iter().map(|row| row.call).collect();
        assert_eq!(calls.len(), ROWS.len());
        for row in ROWS {
            assert!(!row.why.is_empty());
            assert!(u32::try_from(row.call).unwrap() < FIRST_UNKNOWN, "{row:?} is past what the filter knows");
        }
    }

    #[test]
    fn the_table_compiles_for_both_architectures() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            for errno in [libc::EPERM, libc::ENOSYS, libc::EAFNOSUPPORT] {
                assert!(program(errno, arch).unwrap().len() < 4096);
            }
        }
    }
}
