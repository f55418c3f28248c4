//! The traces in `tests/loops`, written from scripts with fixed seeds.
//!
//! A script tells what an agent does and what its tools answer, with the texts and times of real servers: [`retries`],
//! [`circles`] and [`standstill`] are loops, [`work`] and [`waiting`] are honest. The traces are committed; a test
//! compares them with the scripts.

mod circles;
mod retries;
mod script;
mod standstill;
mod waiting;
mod work;

use std::path::Path;

use anyhow::{Context as _, Result};

use super::trace::Trace;

/// Writes every trace to a folder.
pub fn write(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    for trace in traces() {
        let file = folder.join(format!("{}.jsonl", trace.head.name));
        std::fs::write(&file, trace.text()?).with_context(|| format!("failed to write {}", file.display()))?;
    }
    Ok(())
}

/// Returns every trace.
pub fn traces() -> Vec<Trace> {
    [retries::traces(), circles::traces(), standstill::traces(), work::traces(), waiting::traces()].concat()
}
