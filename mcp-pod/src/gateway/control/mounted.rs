//! The mounted snapshot: the lowest generation that a gateway may enforce, known before it has spoken to anyone.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use mcp_fleet_control::snapshot::{self, CHUNK_PLACES, INDEX, MAX_CHUNK, chunk_name};

use super::intake::{Intake, chain};

/// Reads the directory and hands what it says to the intake; says so where it cannot.
///
/// A missing index is no error: it is how a gateway's first minutes look.
pub(super) async fn read(directory: &Path, intake: &Intake) {
    let path = directory.to_owned();
    // What is enforced and not the floor: the index may come into the directory before its chunks.
    let known = intake.enforced().0;
    let read = tokio::task::spawn_blocking(move || files(&path, known)).await;
    match read {
        Ok(Ok(Some(files))) => take(&files, intake),
        Ok(Ok(None)) | Err(_) => {}
        Ok(Err(error)) => tracing::warn!(error = chain(&error), "the mounted policy cannot be read"),
    }
}

/// The files of the snapshot; none: there is no index, or it is the one that is known.
fn files(directory: &Path, known: u64) -> io::Result<Option<BTreeMap<String, Vec<u8>>>> {
    let mut files = BTreeMap::new();
    let Some(index) = file(directory, INDEX)? else { return Ok(None) };
    files.insert(INDEX.to_owned(), index);
    if snapshot::read_index(&files).is_ok_and(|index| index.generation <= known) {
        return Ok(None);
    }
    for name in (0..CHUNK_PLACES).map(chunk_name) {
        if let Some(bytes) = file(directory, &name)? {
            files.insert(name, bytes);
        }
    }
    Ok(Some(files))
}

fn file(directory: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    use io::Read as _;
    let file = match std::fs::File::open(directory.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    // A chunk is never larger; a byte more makes the snapshot fail its digest instead of filling memory.
    file.take(MAX_CHUNK as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn take(files: &BTreeMap<String, Vec<u8>>, intake: &Intake) {
    match snapshot::read_index(files) {
        Ok(index) => intake.raise_floor(index.generation),
        Err(error) => {
            tracing::warn!(error = chain(&error), "the mounted policy has no readable index");
            return;
        }
    }
    match snapshot::join(files) {
        Ok((encoded, policy)) => intake.install_mounted(policy, encoded.digest),
        // The index alone has done its work: nothing below it will be enforced.
        Err(error) => tracing::warn!(error = chain(&error), "the mounted policy cannot be enforced"),
    }
}
