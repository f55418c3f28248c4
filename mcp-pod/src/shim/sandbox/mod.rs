//! `mcp-pod sandbox-exec`: enters a sandbox that cannot be left, and executes the user's command in it.
//!
//! It is a separate process with one thread, so that it can set up the restrictions with safe calls before `exec`,
//! rather than between `fork` and `exec` of a busy process. It closes inherited descriptors, drops privileges, sets
//! [`limits`], enters the [`files`] domain, installs the [`syscalls`] filter and connects it to the [`monitor`], in this
//! order. If any of this fails, it exits with [`EXIT_NO_SANDBOX`]; the command never runs with fewer restrictions.
//!
//! [`spawn`] is the shim's side: it starts `sandbox-exec` and the monitor.

mod deny;
mod files;
mod limits;
mod monitor;
mod mounts;
mod sys;
mod syscalls;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};

use rustix::io::{FdFlags, fcntl_setfd};

pub use monitor::{Monitor, MonitorError};
pub use mounts::Mounts;

/// Exit status if the sandbox could not be set up.
pub(super) const EXIT_NO_SANDBOX: u8 = 125;
/// Exit status if the command could not be executed in the sandbox.
const EXIT_NO_COMMAND: u8 = 127;

/// What a sandboxed command may use.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Directory that the command may read and write, in addition to /tmp.
    pub workspace: Option<PathBuf>,
    /// Directories that the command may use besides.
    pub mounts: Mounts,
    /// Directories that the command must not read, even if they are part of the image.
    pub private: Vec<PathBuf>,
    /// Directories and files that the command may read and execute. Without any, it is the root file system without other
    /// mounts, which in a container is the image.
    pub readable: Vec<PathBuf>,
    /// Processes and threads that the command may have at a time, itself included.
    pub max_processes: usize,
    /// The TCP port on which the command may listen, on the loopback interface. None: it has no network.
    pub port: Option<u16>,
}

/// Command line of `sandbox-exec`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Inherited socket on which the monitor expects the listener of the system call filter.
    #[arg(long, value_name = "FD")]
    monitor: RawFd,
    /// Directory that the command may read and write, in addition to /tmp.
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    #[command(flatten)]
    mounts: Mounts,
    /// Directories that the command must not read, even if they are part of the image.
    #[arg(long = "private", value_name = "DIR", default_value = "/mcp-fleet")]
    private: Vec<PathBuf>,
    /// Directories and files that the command may read and execute, instead of the root file system without other mounts.
    #[arg(long, value_name = "PATH")]
    readable: Vec<PathBuf>,
    /// TCP port on which the command may listen, on the loopback interface.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Why the sandbox could not be set up.
#[derive(Debug, thiserror::Error)]
enum SandboxError {
    #[error("failed to use the socket of the monitor")]
    Monitor(#[source] io::Error),
    #[error("failed to close inherited descriptors")]
    Descriptors(#[source] io::Error),
    #[error("failed to drop privileges")]
    Privileges(#[source] rustix::io::Errno),
    #[error("failed to limit resources")]
    Limits(#[from] limits::LimitsError),
    #[error("failed to enter the file and network domain (Linux 6.12 or newer with Landlock is needed)")]
    Files(#[from] files::FilesError),
    #[error("failed to install the system call filter")]
    Syscalls(#[from] syscalls::SyscallsError),
}

/// Fails if this kernel cannot enforce the rules on files, network and signals.
pub fn check_kernel() -> io::Result<()> {
    files::check_kernel().map_err(io::Error::other)
}

/// Starts a command in a sandbox. `executable` is this program, and `configure` can set the standard streams.
///
/// The calling process becomes the monitor of the command. It has to be the parent of the command's orphans
/// (`PR_SET_CHILD_SUBREAPER`, or process 1 of a container), because it counts its own descendants.
pub fn spawn(
    executable: &Path,
    profile: &Profile,
    command: &[OsString],
    configure: impl FnOnce(&mut Command),
) -> io::Result<(Child, Monitor)> {
    let (monitor, socket) = Monitor::start(profile.max_processes, profile.port.is_some())?;
    let mut sandbox_exec = Command::new(executable);
    sandbox_exec.arg0(crate::NAME);
    sandbox_exec.arg("sandbox-exec").arg("--monitor").arg(socket.as_raw_fd().to_string());
    if let Some(workspace) = &profile.workspace {
        sandbox_exec.arg("--workspace").arg(workspace);
    }
    sandbox_exec.args(profile.mounts.arguments());
    for private in &profile.private {
        sandbox_exec.arg("--private").arg(private);
    }
    for readable in &profile.readable {
        sandbox_exec.arg("--readable").arg(readable);
    }
    if let Some(port) = profile.port {
        sandbox_exec.arg("--port").arg(port.to_string());
    }
    sandbox_exec.arg("--").args(command);
    configure(&mut sandbox_exec);
    // Lets the child inherit the socket. If another process is started meanwhile, it inherits it too, and can do nothing
    // with it but delay the end of the monitor.
    fcntl_setfd(&socket, FdFlags::empty())?;
    let child = sandbox_exec.spawn()?;
    Ok((child, monitor))
}

/// Enters the sandbox and executes the command in place of this process. Returns only if that failed.
pub fn exec(args: &Args) -> ExitCode {
    if let Err(error) = enter(args) {
        print_chain(&error);
        return ExitCode::from(EXIT_NO_SANDBOX);
    }
    let Some((program, arguments)) = args.command.split_first() else {
        return ExitCode::from(EXIT_NO_COMMAND);
    };
    let error = Command::new(program).args(arguments).exec();
    eprintln!("mcp-pod sandbox-exec: failed to execute {}: {error}", program.display());
    ExitCode::from(EXIT_NO_COMMAND)
}

fn enter(args: &Args) -> Result<(), SandboxError> {
    let socket = sys::inherited(args.monitor).map_err(SandboxError::Monitor)?;
    // Container runtimes have leaked descriptors of the host into containers before, and an open directory bypasses
    // Landlock.
    sys::close_descriptors_on_exec().map_err(SandboxError::Descriptors)?;
    drop_privileges().map_err(SandboxError::Privileges)?;
    limits::set()?;
    files::enter(args.workspace.as_deref(), &args.mounts, &args.private, &args.readable, args.port)?;
    // Last, because the filter also denies calls that the other steps need.
    let listener: OwnedFd = syscalls::install(args.port.is_some())?;
    monitor::send_listener(socket.as_fd(), listener.as_fd()).map_err(SandboxError::Monitor)
}

/// Drops all capabilities and keeps `exec` from gaining any. A restricted pod has none to begin with. Elsewhere some of
/// them, such as `CAP_PERFMON`, would allow reading other processes in spite of Landlock.
fn drop_privileges() -> rustix::io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
    let none = CapabilitySet::empty();
    set_no_new_privs(true)?;
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

/// Prints the error and its sources.
fn print_chain(error: &dyn std::error::Error) {
    let mut text = format!("mcp-pod sandbox-exec: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    eprintln!("{text}");
}
