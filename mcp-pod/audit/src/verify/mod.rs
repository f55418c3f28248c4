//! The checking side.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, BufRead};

use serde::Deserialize;
use ulid::Ulid;

use crate::chain::Head;
use crate::digest::Digest;
use crate::log::{Log, LogLine, MAX_LINE};

/// A line of a chain that is known from elsewhere to have been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The line.
    pub head: Head,
    /// Name of the pod that wrote it.
    pub pod: String,
}

/// Where a line was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the file, in the order in which they were read.
    pub file: usize,
    /// Number of the line in the file; the first one is 1.
    pub line: u64,
}

/// What is wrong with the lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// An audit line cannot be read.
    Unreadable {
        /// Where it is.
        place: Place,
        /// Why.
        cause: String,
    },
    /// An audit line is in no chain.
    Unchained {
        /// Where the first one is.
        first: Place,
        /// Number of such lines.
        count: u64,
    },
    /// A line is behind one that was written later.
    Reordered {
        /// The chain.
        chain: Ulid,
        /// Number of the line.
        sequence: u64,
        /// Where it is.
        place: Place,
    },
    /// There are two different lines with one number.
    Conflicting {
        /// The chain.
        chain: Ulid,
        /// The number.
        sequence: u64,
        /// Where the second one is.
        place: Place,
    },
    /// A line does not have the digest that the next line or a checkpoint names.
    Changed {
        /// The chain.
        chain: Ulid,
        /// Number of the line.
        sequence: u64,
        /// Where it is.
        place: Place,
    },
    /// Lines are missing, other than at the end.
    Removed {
        /// The chain.
        chain: Ulid,
        /// Number of the first missing line.
        from: u64,
        /// Number of the last missing line.
        to: u64,
    },
    /// Lines are missing at the end, according to a checkpoint.
    CutOff {
        /// The chain.
        chain: Ulid,
        /// Number of the first missing line.
        from: u64,
        /// Number of the last line that is known to have been written.
        to: u64,
        /// Name of the pod that wrote them.
        pod: String,
    },
}

impl Problem {
    /// Describes the problem. `names` are the names of the files, in the order in which they were read.
    pub fn describe(&self, names: &[String]) -> String {
        let at = |place: &Place| {
            let name = names.get(place.file).map_or("?", String::as_str);
            format!("{name}:{}", place.line)
        };
        match self {
            Self::Unreadable { place, cause } => format!("{}: an audit line cannot be read: {cause}", at(place)),
            Self::Unchained { first, count } => format!(
                "{}: {count} audit lines are in no chain: they were added, or a gateway wrote them whose version had no \
                 chain yet",
                at(first)
            ),
            Self::Reordered { chain, sequence, place } => {
                format!("{}: line {sequence} of chain {chain} is behind a later line", at(place))
            }
            Self::Conflicting { chain, sequence, place } => {
                format!("{}: chain {chain} has another line {sequence}", at(place))
            }
            Self::Changed { chain, sequence, place } => {
                format!("{}: line {sequence} of chain {chain} is not the line that was written", at(place))
            }
            Self::Removed { chain, from, to } => format!("chain {chain}: lines {from} to {to} are missing"),
            Self::CutOff { chain, from, to, pod } => {
                format!("chain {chain}: pod {pod} wrote lines {from} to {to}, which are missing")
            }
        }
    }
}

/// What is known about one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The chain.
    pub chain: Ulid,
    /// Number of the first line that was read.
    pub first: u64,
    /// Number of the last line that was read.
    pub last: u64,
    /// Number of the last line that a checkpoint confirms; 0 if there is none. Whether later lines are the ones that were
    /// written is not known.
    pub confirmed: u64,
}

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The chains, by age.
    pub chains: Vec<Summary>,
    /// What is wrong, if anything.
    pub problems: Vec<Problem>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    sequence: u64,
    digest: Digest,
    previous: Option<Digest>,
    place: Place,
}

/// Collects audit lines, and checks them at the end.
#[derive(Debug, Default)]
pub struct Verifier {
    chains: BTreeMap<Ulid, Vec<Link>>,
    problems: Vec<Problem>,
    /// Audit lines that are in no chain: where the first one is, and their number.
    unchained: Option<(Place, u64)>,
}

/// The fields of an audit line that the chain consists of.
#[derive(Deserialize)]
struct Fields {
    audit: Option<serde_json::Value>,
    chain: Option<Ulid>,
    sequence: Option<u64>,
    previous: Option<Digest>,
}

impl Verifier {
    /// Creates a verifier that has read nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a log. `file` is its index among the logs. Lines that are not audit lines are skipped. Memory is bounded by the
    /// number of lines.
    pub fn read_log(&mut self, file: usize, log: impl BufRead) -> io::Result<()> {
        let mut log = Log::new(log);
        while let Some(line) = log.next_line()? {
            self.read(Place { file, line: line.number }, &line);
        }
        Ok(())
    }

    fn read(&mut self, place: Place, line: &LogLine<'_>) {
        let begins = line.text.starts_with(b"{\"audit\"");
        if line.is_cut && begins {
            let cause = format!("it is longer than {MAX_LINE} bytes");
            self.problems.push(Problem::Unreadable { place, cause });
            return;
        }
        let line = line.text;
        if !line.starts_with(b"{") {
            return;
        }
        let fields = match serde_json::from_slice::<Fields>(line) {
            Ok(fields) => fields,
            // What is not JSON at all is missing in its chain.
            Err(error) if error.is_data() && begins => {
                self.problems.push(Problem::Unreadable { place, cause: error.to_string() });
                return;
            }
            Err(_) => return,
        };
        match fields {
            Fields { audit: None, .. } => {}
            Fields { chain: Some(chain), sequence: Some(sequence), previous, .. } if sequence > 0 => {
                let links = self.chains.entry(chain).or_default();
                links.push(Link { sequence, digest: Digest::of(line), previous, place });
            }
            _ => self.unchained.get_or_insert((place, 0)).1 += 1,
        }
    }

    /// Checks everything that was read. `partial` accepts that the first lines of chains are missing, as they are where old
    /// logs were deleted.
    pub fn finish(self, checkpoints: &[Checkpoint], partial: bool) -> Report {
        let Self { chains, mut problems, unchained } = self;
        problems.extend(unchained.map(|(first, count)| Problem::Unchained { first, count }));
        let mut known_heads: BTreeMap<Ulid, Vec<&Checkpoint>> = BTreeMap::new();
        for checkpoint in checkpoints {
            known_heads.entry(checkpoint.head.chain).or_default().push(checkpoint);
        }
        let mut report = Report { chains: Vec::with_capacity(chains.len()), problems };
        for (chain, links) in chains {
            let known = known_heads.remove(&chain).unwrap_or_default();
            report.chains.push(check(chain, links, &known, partial, &mut report.problems));
        }
        for (chain, known) in known_heads {
            if let Some(last) = known.iter().max_by_key(|known| known.head.sequence) {
                let (to, pod) = (last.head.sequence, last.pod.clone());
                report.problems.push(Problem::CutOff { chain, from: 1, to, pod });
            }
        }
        report
    }
}

/// Checks the lines of one chain, in the order in which they were read.
fn check(
    chain: Ulid,
    mut links: Vec<Link>,
    checkpoints: &[&Checkpoint],
    partial: bool,
    problems: &mut Vec<Problem>,
) -> Summary {
    let mut latest: HashMap<usize, u64> = HashMap::new();
    for Link { sequence, place, .. } in &links {
        let before = latest.entry(place.file).or_default();
        if sequence < before {
            problems.push(Problem::Reordered { chain, sequence: *sequence, place: *place });
        }
        *before = (*before).max(*sequence);
    }
    links.sort_by_key(|link| link.sequence);
    // Log collectors deliver some lines twice.
    links.dedup_by(|later, earlier| later.sequence == earlier.sequence && later.digest == earlier.digest);
    let first = links.first().map_or(0, |link| link.sequence);
    if first > 1 && !partial {
        problems.push(Problem::Removed { chain, from: 1, to: first - 1 });
    }
    for (earlier, later) in links.iter().zip(links.iter().skip(1)) {
        let Link { sequence, digest, place, .. } = *earlier;
        if later.sequence == sequence {
            problems.push(Problem::Conflicting { chain, sequence, place: later.place });
        } else if later.sequence - sequence > 1 {
            problems.push(Problem::Removed { chain, from: sequence + 1, to: later.sequence - 1 });
        } else if later.previous != Some(digest) {
            problems.push(Problem::Changed { chain, sequence, place });
        }
    }
    let last = links.last().map_or(0, |link| link.sequence);
    let mut confirmed = 0;
    for Checkpoint { head, pod } in checkpoints {
        if head.sequence > last {
            problems.push(Problem::CutOff { chain, from: last + 1, to: head.sequence, pod: pod.clone() });
            continue;
        }
        match links.iter().find(|link| link.sequence == head.sequence) {
            Some(link) if link.digest == head.digest => confirmed = confirmed.max(head.sequence),
            Some(link) => problems.push(Problem::Changed { chain, sequence: head.sequence, place: link.place }),
            // It is among the removed lines, or older than the first one.
            None => {}
        }
    }
    Summary { chain, first, last, confirmed }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, first, last, confirmed } = self;
        write!(f, "chain {chain}: lines {first} to {last}")?;
        match confirmed {
            0 => f.write_str(", no checkpoint"),
            _ => write!(f, ", confirmed up to line {confirmed}"),
        }
    }
}

#[cfg(test)]
mod tests;
