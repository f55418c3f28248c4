//! Runs other programs. Errors name the command and include the end of its output.

use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs `command` without showing its output. The error of a failed command includes the last lines that it printed.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs `command` and returns its standard output, with the same errors as [`run`].
pub fn output(command: &mut Command) -> Result<String> {
    let result = command.stdin(Stdio::null()).output().with_context(|| start_failure(command))?;
    stdout_of(command, &result)
}

/// Like [`output`], with `input` on the standard input. Fine for manifests, not for images: the call hangs if the
/// program prints more than a pipe buffer holds before it has read all of its input.
pub fn output_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    use std::io::Write as _;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| start_failure(command))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).with_context(|| format!("failed to write to {}", command.get_program().display()))?;
    }
    let result = child.wait_with_output()?;
    stdout_of(command, &result)
}

/// Returns the error text for a command that cannot be started.
pub fn start_failure(command: &Command) -> String {
    format!("failed to start `{}`; check that it is installed and on PATH", command.get_program().display())
}

/// Returns the standard output of a finished command, or an error with the end of its output.
fn stdout_of(command: &Command, result: &Output) -> Result<String> {
    if result.status.success() {
        return Ok(String::from_utf8_lossy(&result.stdout).into_owned());
    }
    let printed = String::from_utf8_lossy(if result.stderr.is_empty() { &result.stdout } else { &result.stderr });
    let lines: Vec<&str> = printed.lines().collect();
    let tail = lines[lines.len().saturating_sub(15)..].join("\n");
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    bail!("`{} {}` failed ({}):\n{tail}", command.get_program().display(), arguments.join(" "), result.status)
}

/// Returns whether a program of this name is on PATH.
pub fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
        // On Debian, these folders are not on PATH for users other than root.
        || ["/usr/sbin", "/sbin"].iter().any(|folder| std::path::Path::new(folder).join(program).is_file())
}
