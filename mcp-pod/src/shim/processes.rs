//! Reads the process table in `/proc`.

use std::collections::HashSet;

use rustix::process::Pid;

/// A process. Ended processes are included until their parent has collected them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: Pid,
    /// `None` if the parent is outside of this container.
    pub(super) parent: Option<Pid>,
    pub(super) threads: usize,
}

/// Returns all processes of this container. A process that ends in the meantime may be missing.
pub(super) fn all() -> std::io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        match std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
            Ok(stat) => processes.extend(parse(pid, &stat)),
            // It has ended. Any other error must not make it look so.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(processes)
}

/// Parses `/proc/<pid>/stat` (proc_pid_stat(5)). The name may contain anything and ends at the last parenthesis. State
/// and parent follow, and the number of threads 16 fields later.
fn parse(pid: Pid, stat: &[u8]) -> Option<Process> {
    let stat = String::from_utf8_lossy(stat);
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let parent = Pid::from_raw(fields.nth(1)?.parse().ok()?);
    let threads = fields.nth(15)?.parse().ok()?;
    Some(Process { pid, parent, threads })
}

/// Returns the number of threads of all descendants of `root`; a process with one thread counts as one.
///
/// A process whose parent is not in the table counts as a descendant: the parent has ended while the table was read, and
/// the process will become a child of `root`, which inherits orphans.
pub(super) fn descendant_threads(processes: &[Process], root: Pid) -> usize {
    let known: HashSet<Pid> = processes.iter().map(|process| process.pid).collect();
    let mut descendants = HashSet::from([root]);
    let mut threads = 0;
    let mut left: Vec<_> = processes.iter().filter(|process| process.pid != root).collect();
    loop {
        let before = left.len();
        left.retain(|process| {
            let descends = process.parent.is_some_and(|pid| descendants.contains(&pid) || !known.contains(&pid));
            if descends {
                descendants.insert(process.pid);
                threads += process.threads.max(1);
            }
            !descends
        });
        if left.len() == before {
            return threads;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn process(pid: i32, parent: i32, threads: usize) -> Process {
        Process { pid: Pid::from_raw(pid).unwrap(), parent: Pid::from_raw(parent), threads }
    }

    #[test]
    fn the_line_of_a_process_is_parsed_whatever_its_name_is() {
        let pid = Pid::from_raw(42).unwrap();
        let rest = "S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 11 0 123 456";
        for name in ["node", "a b", ") R 1 1", "\u{fffd}"] {
            assert_eq!(parse(pid, format!("42 ({name}) {rest}").as_bytes()), Some(process(42, 7, 11)), "{name}");
        }
        assert_eq!(parse(pid, b"42 (x) S"), None);
        let own = all().unwrap().into_iter().find(|process| process.pid == rustix::process::getpid()).unwrap();
        assert_eq!(own.parent, rustix::process::getppid());
        assert!(own.threads >= 1);
    }

    #[test]
    fn descendants_are_counted_with_their_threads_in_any_order() {
        let root = Pid::from_raw(10).unwrap();
        let mut table = vec![
            process(1, 0, 1),
            process(2, 1, 50),
            process(10, 1, 3),
            process(11, 10, 4),
            process(12, 11, 1),
            process(13, 12, 0),
            process(14, 0, 7),
        ];
        assert_eq!(descendant_threads(&table, root), 6);
        table.reverse();
        assert_eq!(descendant_threads(&table, root), 6);
        table.retain(|process| process.pid.as_raw_pid() != 12);
        assert_eq!(descendant_threads(&table, root), 5, "13 is an orphan and still counts");
    }
}
