//! What the system call filter denies, as data: one row a call, with the reason.
//!
//! Everything else is allowed here; in a pod, the container runtime's default profile is an allow list around it.
//! A row answers an errno and never kills, so that a program that merely tries can go on.

use libc::{EAFNOSUPPORT, ENOSYS, EPERM};

/// One condition on one argument.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument {
    /// The 32-bit argument equals.
    Is(u8, u32),
    /// The 32-bit argument differs.
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
    /// Its number on this architecture.
    pub(super) call: libc::c_long,
    /// What it answers.
    pub(super) errno: i32,
    /// Denied if all conditions of any entry hold; empty: always.
    pub(super) when: &'static [&'static [Argument]],
    /// Why.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by people, and by the test that wants one for each row"))]
    pub(super) why: &'static str,
}

const fn always(call: libc::c_long, errno: i32, why: &'static str) -> Row {
    Row { call, errno, when: &[], why }
}

const fn when(call: libc::c_long, errno: i32, when: &'static [&'static [Argument]], why: &'static str) -> Row {
    Row { call, errno, when, why }
}

/// The first call number that nobody has looked at (Linux 6.17 ends at 469, `file_setattr`). From here on, and on
/// other ABIs of the same machine (x32 numbers start at 2^30), every call answers ENOSYS, as on an older kernel.
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

const SOCKETS: &str = "no network: the only sockets are pairs, which reach nobody";
const OTHERS: &str = "would reach other processes of the same uid, the shim among them";
const INTROSPECTION: &str = "reads or writes other processes";
const KEYRINGS: &str = "keyrings are shared by all processes of a uid";
const KERNEL: &str = "large kernel surface that no tool needs";
const MOUNTS: &str = "a new view of the file system is a way around path rules";
const SHARED: &str = "shared memory and queues outside of the file rules";
const HANDLES: &str = "opens files by number, around path rules";
const HOST: &str = "changes the machine";

/// The filter.
pub(super) const ROWS: &[Row] = &[
    // Network.
    always(libc::SYS_socket, EAFNOSUPPORT, SOCKETS),
    when(
        libc::SYS_socketpair,
        EAFNOSUPPORT,
        &[
            &[IsNot(0, libc::AF_UNIX as u32)],
            // Datagram sockets of a pair can still send to a path. SOCK_RAW is a datagram socket here, see unix(7).
            &[Bits { index: 1, mask: 0xf, value: libc::SOCK_DGRAM as u32 }],
            &[Bits { index: 1, mask: 0xf, value: libc::SOCK_RAW as u32 }],
        ],
        "asyncio and child processes need stream pairs of AF_UNIX; nothing else does",
    ),
    always(libc::SYS_connect, EPERM, SOCKETS),
    always(libc::SYS_bind, EPERM, SOCKETS),
    always(libc::SYS_listen, EPERM, SOCKETS),
    always(libc::SYS_accept, EPERM, SOCKETS),
    always(libc::SYS_accept4, EPERM, SOCKETS),
    when(libc::SYS_sendto, EPERM, &[&[NotNull(4)]], SOCKETS),
    // Other processes. Signals are fenced by Landlock.
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
    // Namespaces and mounts. clone3 keeps its flags in memory, where no filter sees them; libc falls back to clone.
    when(libc::SYS_clone, EPERM, ANY_NEW_NAMESPACE, "a namespace of its own would give it capabilities in there"),
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
    // Kernel surface. Runtimes take ENOSYS for "do without".
    always(libc::SYS_io_uring_setup, ENOSYS, "its operations pass no filter"),
    always(libc::SYS_io_uring_enter, ENOSYS, "its operations pass no filter"),
    always(libc::SYS_io_uring_register, ENOSYS, "its operations pass no filter"),
    always(libc::SYS_bpf, EPERM, KERNEL),
    always(libc::SYS_perf_event_open, EPERM, KERNEL),
    always(libc::SYS_userfaultfd, EPERM, KERNEL),
    always(libc::SYS_fanotify_init, EPERM, KERNEL),
    when(
        libc::SYS_personality,
        EPERM,
        &[&[IsNot(0, 0), IsNot(0, u32::MAX)]],
        "other personalities switch protections of memory off",
    ),
    when(libc::SYS_ioctl, EPERM, &[&[Is(1, 0x5412)], &[Is(1, 0x541c)]], "TIOCSTI and TIOCLINUX type on a terminal"),
    // The machine.
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

/// Linux 6.15; the libc crate does not name it yet. The same number on every architecture.
const OPEN_TREE_ATTR: libc::c_long = 467;
