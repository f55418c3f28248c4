//! `mcp-pod sandbox-exec`: enters a sandbox that cannot be left, and executes the user's command in it.
//!
//! It is a separate process with one thread, so that it can set up the restrictions with safe calls before `exec`,
//! rather than between `fork` and `exec` of a busy process. It closes inherited descriptors, drops privileges, sets
//! [`limits`], enters the [`files`] domain and installs the [`syscalls`] filter, in this order. If any of this fails, it
//! exits with [`EXIT_NO_SANDBOX`]; the command never runs with fewer restrictions.

mod deny;
mod files;
mod limits;
mod syscalls;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Exit status if the sandbox could not be set up.
pub(super) const EXIT_NO_SANDBOX: u8 = 125;
/// Exit status if the command could not be executed in the sandbox.
const EXIT_NO_COMMAND: u8 = 127;

/// Command line of `sandbox-exec`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory that the command may read and write, in addition to /tmp.
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// Directories that the command must not read, even if they are part of the image.
    #[arg(long = "private", value_name = "DIR", default_value = "/mcp-fleet")]
    private: Vec<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Why the sandbox could not be set up.
#[derive(Debug, thiserror::Error)]
enum SandboxError {
    #[error("failed to close inherited descriptors")]
    Descriptors(#[source] std::io::Error),
    #[error("failed to drop privileges")]
    Privileges(#[source] rustix::io::Errno),
    #[error("failed to limit resources")]
    Limits(#[from] limits::LimitsError),
    #[error("failed to enter the file and network domain (Linux 6.12 or newer with Landlock is needed)")]
    Files(#[from] files::FilesError),
    #[error("failed to install the system call filter")]
    Syscalls(#[from] syscalls::SyscallsError),
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
    close_inherited_descriptors().map_err(SandboxError::Descriptors)?;
    drop_privileges().map_err(SandboxError::Privileges)?;
    limits::set()?;
    files::enter(args.workspace.as_deref(), &args.private)?;
    // Last, because the filter also denies calls that the other steps need.
    syscalls::install()?;
    Ok(())
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

/// Makes `exec` close all descriptors except stdin, stdout and stderr. Container runtimes have leaked descriptors of the
/// host into containers before, and an open directory bypasses Landlock.
#[allow(unsafe_code)]
fn close_inherited_descriptors() -> std::io::Result<()> {
    // SAFETY: with CLOEXEC, close_range(2) only sets flags on descriptors. It does not access memory of this process.
    let status = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if status == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
