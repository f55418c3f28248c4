//! Running other programs, with errors that say which one and what it said.

use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs `command` to its end without showing its output; a failure carries the last lines of what it printed.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs `command` and returns its standard output, with the same errors as [`run`].
pub fn output(command: &mut Command) -> Result<String> {
    let result = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {}", command.get_program().display()))?;
    succeeded(command, &result)
}

/// Like [`output`], with `input` on its standard input. The input has to fit a pipe's buffer together with what the
/// program prints before it has read all of it: right for manifests, wrong for images.
pub fn output_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    use std::io::Write as _;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {}", command.get_program().display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).with_context(|| format!("failed to write to {}", command.get_program().display()))?;
    }
    let result = child.wait_with_output()?;
    succeeded(command, &result)
}

fn succeeded(command: &Command, result: &Output) -> Result<String> {
    if result.status.success() {
        return Ok(String::from_utf8_lossy(&result.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(if result.stderr.is_empty() { &result.stdout } else { &result.stderr });
    let lines: Vec<&str> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(15)..].join("\n");
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    bail!("`{} {}` failed ({}):\n{tail}", command.get_program().display(), arguments.join(" "), result.status)
}

/// Whether a program of this name is on the path.
pub fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
        // Debian keeps these off the path of users who are not root.
        || ["/usr/sbin", "/sbin"].iter().any(|folder| std::path::Path::new(folder).join(program).is_file())
}
