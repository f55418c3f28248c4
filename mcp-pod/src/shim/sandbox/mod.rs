//! `mcp-pod sandbox-exec`: becomes the user's command, inside a sandbox that cannot be left.
//!
//! It runs as a process of its own with one thread, so that the restrictions can be put on with safe calls before
//! `exec`, rather than between `fork` and `exec` of a busy process. In order: inherited descriptors are closed,
//! privileges dropped, [`limits`] set, the [`files`] domain entered, the [`syscalls`] filter installed. Whatever cannot be set up ends the
//! process with [`EXIT_NO_SANDBOX`]; the command never runs with less.

mod deny;
mod files;
mod limits;
mod syscalls;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Exit status when the sandbox could not be set up.
pub const EXIT_NO_SANDBOX: u8 = 125;
/// Exit status when the command could not be executed inside it.
const EXIT_NO_COMMAND: u8 = 127;

/// What the command may touch, and the command.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory that the command may read and write, beside /tmp.
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Directories that the command must not see into, even where they are part of the image.
    #[arg(long = "private", value_name = "DIR", default_value = "/mcp-fleet")]
    pub private: Vec<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
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

/// Enters the sandbox and becomes the command; returns only to say that it could not.
pub fn exec(args: &Args) -> ExitCode {
    if let Err(error) = enter(args) {
        complain(&error);
        return ExitCode::from(EXIT_NO_SANDBOX);
    }
    let Some((program, rest)) = args.command.split_first() else {
        return ExitCode::from(EXIT_NO_COMMAND);
    };
    let error = Command::new(program).args(rest).exec();
    eprintln!("mcp-pod sandbox-exec: failed to execute {}: {error}", program.display());
    ExitCode::from(EXIT_NO_COMMAND)
}

fn enter(args: &Args) -> Result<(), SandboxError> {
    close_inherited().map_err(SandboxError::Descriptors)?;
    drop_privileges().map_err(SandboxError::Privileges)?;
    limits::set()?;
    files::enter(args.workspace.as_deref(), &args.private)?;
    // Last, because it also denies some of what the steps before it need.
    syscalls::install()?;
    Ok(())
}

/// No capabilities, and no way for `exec` to bring any back. A restricted pod has none to begin with; elsewhere some of
/// them (`CAP_PERFMON`) would read other processes past Landlock.
fn drop_privileges() -> rustix::io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
    let none = CapabilitySet::empty();
    set_no_new_privs(true)?;
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

fn complain(error: &dyn std::error::Error) {
    let mut text = format!("mcp-pod sandbox-exec: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    eprintln!("{text}");
}

/// Marks everything but stdin, stdout and stderr to be closed by `exec`: container runtimes have leaked descriptors
/// of the host into containers before, and an open directory is a way around Landlock.
#[allow(unsafe_code)]
fn close_inherited() -> std::io::Result<()> {
    // SAFETY: close_range(2) with CLOEXEC closes nothing now and touches no memory of ours.
    let outcome = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
