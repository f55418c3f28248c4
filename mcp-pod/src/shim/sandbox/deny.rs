//! The system calls that the filter denies, as a table: one row per call, with the reason.
//!
//! All other calls are allowed here. In a pod, the container runtime's default profile is an allow list in addition.
//! A denied call returns an errno and never kills the process, so that a program can continue without it.

use libc::{EAFNOSUPPORT, ENOSYS, EPERM};

/// A condition on one argument of a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument {
    /// The 32-bit argument equals the value.
    Is(u8, u32),
    /// The 32-bit argument differs from the value.
    IsNot(u8, u32),
    /// The bits of `mask` of the 32-bit argument are exactly `value`.
    Bits { index: u8, mask: u32, value: u32 },
    /// The pointer is not null.
    NotNull(u8),
}

use Argument::{Bits, Is, IsNot, NotNull};

/// A denied call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Number of the call on this architecture.
    pub(super) call: libc::c_long,
    /// Error that the call returns.
    pub(super) errno: i32,
    /// The call is denied if all conditions of any entry hold, or if there is no entry.
    pub(super) when: &'static [&'static [Argument]],
    /// Why the call is denied.
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers, and for the test that requires one on each row"))]
    pub(super) why: &'static str,
}

const fn always(call: libc::c_long, errno: i32, why: &'static str) -> Row {
    Row { call, errno, when: &[], why }
}

const fn when(call: libc::c_long, errno: i32, when: &'static [&'static [Argument]], why: &'static str) -> Row {
    Row { call, errno, when, why }
}

/// The first call number that was not reviewed for this table (Linux 6.17 ends at 469, `file_setattr`). Calls from this
/// number on, and calls of other ABIs of the machine (x32 numbers start at 2^30), return ENOSYS, as on an older kernel.
pub(super) const FIRST_UNKNOWN: u32 = 470;

const ANY_NEW_NAMESPACE: &[&[Argument]] = &[
    &[Bits { index: 0, mask: 0x0002_0000, value: 0x0002_0000 }], // CLONE_NEWNS
    &[Bits { index: 0, mask: 0x0200_0000, value: 0x0200_0000 }], // CLONE_NEWCGROUP
    &[Bits { index: 0, mask: 0x0400_0000, value: 0x0400_0000 }], // CLONE_NEWUTS
    &[Bits { index: 0, mask: 0x0800_0000, value: 0x0800_0000 }], // CLONE_NEWIPC
    &[Bits { index: 0, mask: 0x1000_0000, value: 0x1000_0000 }], // CLONE_NEWUSER
    &[Bits { index: 0, mask: 0x2000_0000, value: 0x2000_0000 }], // CLONE_NEWPID
    &[Bits { index: 0, mask: 0x4000_0000, value: 0x4000_0000 }], // CLONE_NEWNET
];

const NOT_ITSELF: &[&[Argument]] = &[&[IsNot(0, 0)]];

const SOCKETS: &str = "no network: the only sockets are pairs, which connect to nothing else";
const CONNECTIONS: &str =
    "no connections: the only sockets are pairs, and those on which a server waits for its clients";
const OTHERS: &str = "affects other processes of the same uid, including the shim";
const INTROSPECTION: &str = "reads or writes other processes";
const KEYRINGS: &str = "keyrings are shared by all processes of a uid";
const KERNEL: &str = "a large kernel attack surface that no tool needs";
const MOUNTS: &str = "a new view of the file system bypasses the path rules";
const SHARED: &str = "shared memory and queues are not covered by the file rules";
const HANDLES: &str = "opens files by handle, which bypasses the path rules";
const HOST: &str = "changes the state of the node";

/// Returns the table for a command that serves HTTP, or for any other one.
pub(super) fn rows(serves: bool) -> impl Iterator<Item = &'static Row> {
    let network = if serves { SERVES } else { NO_NETWORK };
    network.iter().chain(ROWS)
}

/// For a command without network.
const NO_NETWORK: &[Row] = &[
    always(libc::SYS_socket, EAFNOSUPPORT, SOCKETS),
    always(libc::SYS_connect, EPERM, SOCKETS),
    always(libc::SYS_bind, EPERM, SOCKETS),
    always(libc::SYS_listen, EPERM, SOCKETS),
    always(libc::SYS_accept, EPERM, SOCKETS),
    always(libc::SYS_accept4, EPERM, SOCKETS),
    when(libc::SYS_sendto, EPERM, &[&[NotNull(4)]], SOCKETS),
];

/// With data for a connection that does not exist yet, these calls open it (TCP fast open, tcp(7)).
const FAST_OPEN: u32 = libc::MSG_FASTOPEN as u32;

/// For a command that serves HTTP. The monitor makes its sockets, and Landlock checks to which port they are bound.
const SERVES: &[Row] = &[
    always(libc::SYS_connect, EPERM, CONNECTIONS),
    when(
        libc::SYS_sendto,
        EPERM,
        &[&[NotNull(4)], &[Bits { index: 3, mask: FAST_OPEN, value: FAST_OPEN }]],
        CONNECTIONS,
    ),
    when(libc::SYS_sendmsg, EPERM, &[&[Bits { index: 2, mask: FAST_OPEN, value: FAST_OPEN }]], CONNECTIONS),
    when(libc::SYS_sendmmsg, EPERM, &[&[Bits { index: 3, mask: FAST_OPEN, value: FAST_OPEN }]], CONNECTIONS),
    when(
        libc::SYS_setsockopt,
        EPERM,
        &[&[Is(1, libc::IPPROTO_TCP as u32), Is(2, libc::TCP_ULP as u32)]],
        "other protocols on top of TCP, in the kernel",
    ),
];

/// For every command.
const ROWS: &[Row] = &[
    // Network.
    when(
        libc::SYS_socketpair,
        EAFNOSUPPORT,
        &[
            &[IsNot(0, libc::AF_UNIX as u32)],
            // A datagram socket of a pair can still send to a path. SOCK_RAW is a datagram socket here, see unix(7).
            &[Bits { index: 1, mask: 0xf, value: libc::SOCK_DGRAM as u32 }],
            &[Bits { index: 1, mask: 0xf, value: libc::SOCK_RAW as u32 }],
        ],
        "only stream pairs of AF_UNIX are needed, by asyncio and for child processes",
    ),
    // Other processes. Landlock blocks signals to them.
    when(libc::SYS_prlimit64, EPERM, NOT_ITSELF, OTHERS),
    when(libc::SYS_setpriority, EPERM, &[&[IsNot(0, libc::PRIO_PROCESS)], &[IsNot(1, 0)]], OTHERS),
    when(libc::SYS_ioprio_set, EPERM, &[&[IsNot(0, 1)], &[IsNot(1, 0)]], OTHERS),
    when(libc::SYS_sched_setaffinity, EPERM, NOT_ITSELF, OTHERS),
    when(libc::SYS_sched_setscheduler, EPERM, NOT_ITSELF, OTHERS),
    when(libc::SYS_sched_setparam, EPERM, NOT_ITSELF, OTHERS),
    when(libc::SYS_sched_setattr, EPERM, NOT_ITSELF, OTHERS),
    when(libc::SYS_migrate_pages, EPERM, NOT_ITSELF, OTHERS),
    when(libc::SYS_move_pages, EPERM, NOT_ITSELF, OTHERS),
    always(libc::SYS_ptrace, EPERM, INTROSPECTION),
    always(libc::SYS_process_vm_readv, EPERM, INTROSPECTION),
    always(libc::SYS_process_vm_writev, EPERM, INTROSPECTION),
    always(libc::SYS_process_madvise, EPERM, INTROSPECTION),
    always(libc::SYS_process_mrelease, EPERM, INTROSPECTION),
    always(libc::SYS_pidfd_getfd, EPERM, INTROSPECTION),
    always(libc::SYS_kcmp, EPERM, INTROSPECTION),
    always(libc::SYS_keyctl, EPERM, KEYRINGS),
    always(libc::SYS_add_key, EPERM, KEYRINGS),
    always(libc::SYS_request_key, EPERM, KEYRINGS),
    // Shared memory, queues.
    always(libc::SYS_shmget, EPERM, SHARED),
    always(libc::SYS_shmat, EPERM, SHARED),
    always(libc::SYS_shmctl, EPERM, SHARED),
    always(libc::SYS_semget, EPERM, SHARED),
    always(libc::SYS_semop, EPERM, SHARED),
    always(libc::SYS_semtimedop, EPERM, SHARED),
    always(libc::SYS_semctl, EPERM, SHARED),
    always(libc::SYS_msgget, EPERM, SHARED),
    always(libc::SYS_msgsnd, EPERM, SHARED),
    always(libc::SYS_msgrcv, EPERM, SHARED),
    always(libc::SYS_msgctl, EPERM, SHARED),
    always(libc::SYS_mq_open, EPERM, SHARED),
    always(libc::SYS_mq_unlink, EPERM, SHARED),
    // Namespaces and mounts. clone3 has its flags in memory, where a filter cannot read them; libc falls back to clone.
    when(libc::SYS_clone, EPERM, ANY_NEW_NAMESPACE, "a process has capabilities inside a namespace that it creates"),
    always(libc::SYS_clone3, ENOSYS, "its flags cannot be filtered"),
    always(libc::SYS_unshare, EPERM, MOUNTS),
    always(libc::SYS_setns, EPERM, MOUNTS),
    always(libc::SYS_mount, EPERM, MOUNTS),
    always(libc::SYS_umount2, EPERM, MOUNTS),
    always(libc::SYS_pivot_root, EPERM, MOUNTS),
    always(libc::SYS_chroot, EPERM, MOUNTS),
    always(libc::SYS_open_tree, EPERM, MOUNTS),
    always(libc::SYS_move_mount, EPERM, MOUNTS),
    always(libc::SYS_fsopen, EPERM, MOUNTS),
    always(libc::SYS_fsconfig, EPERM, MOUNTS),
    always(libc::SYS_fsmount, EPERM, MOUNTS),
    always(libc::SYS_fspick, EPERM, MOUNTS),
    always(libc::SYS_mount_setattr, EPERM, MOUNTS),
    always(OPEN_TREE_ATTR, EPERM, MOUNTS),
    always(libc::SYS_name_to_handle_at, EPERM, HANDLES),
    always(libc::SYS_open_by_handle_at, EPERM, HANDLES),
    // Kernel attack surface. On ENOSYS, runtimes continue without the feature.
    always(libc::SYS_io_uring_setup, ENOSYS, "the filter does not see its operations"),
    always(libc::SYS_io_uring_enter, ENOSYS, "the filter does not see its operations"),
    always(libc::SYS_io_uring_register, ENOSYS, "the filter does not see its operations"),
    always(libc::SYS_bpf, EPERM, KERNEL),
    always(libc::SYS_perf_event_open, EPERM, KERNEL),
    always(libc::SYS_userfaultfd, EPERM, KERNEL),
    always(libc::SYS_fanotify_init, EPERM, KERNEL),
    when(
        libc::SYS_personality,
        EPERM,
        &[&[IsNot(0, 0), IsNot(0, u32::MAX)]],
        "other personalities turn memory protections off",
    ),
    when(
        libc::SYS_ioctl,
        EPERM,
        &[&[Is(1, 0x5412)], &[Is(1, 0x541c)]],
        "TIOCSTI and TIOCLINUX insert input into a terminal",
    ),
    // The node.
    always(libc::SYS_init_module, EPERM, HOST),
    always(libc::SYS_finit_module, EPERM, HOST),
    always(libc::SYS_delete_module, EPERM, HOST),
    always(libc::SYS_kexec_load, EPERM, HOST),
    always(libc::SYS_reboot, EPERM, HOST),
    always(libc::SYS_swapon, EPERM, HOST),
    always(libc::SYS_swapoff, EPERM, HOST),
    always(libc::SYS_acct, EPERM, HOST),
    always(libc::SYS_quotactl, EPERM, HOST),
    always(libc::SYS_syslog, EPERM, HOST),
    always(libc::SYS_vhangup, EPERM, HOST),
    always(libc::SYS_settimeofday, EPERM, HOST),
    always(libc::SYS_clock_settime, EPERM, HOST),
    always(libc::SYS_sethostname, EPERM, HOST),
    always(libc::SYS_setdomainname, EPERM, HOST),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_kexec_file_load, EPERM, HOST),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_iopl, EPERM, HOST),
    #[cfg(target_arch = "x86_64")]
    always(libc::SYS_ioperm, EPERM, HOST),
];

/// Since Linux 6.15, with the same number on every architecture. The libc crate does not have it yet.
const OPEN_TREE_ATTR: libc::c_long = 467;
