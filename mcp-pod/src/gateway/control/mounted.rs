//! The mounted policy snapshot. Its generation is the lowest that the gateway may enforce, and is known before the
//! gateway has reached the operator.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use mcp_fleet_control::snapshot::{self, CHUNK_SLOTS, INDEX_FILE, MAX_CHUNK_BYTES, SnapshotError, chunk_name};

use super::intake::{Intake, chain};

/// Reads the snapshot in the directory, raises the floor and installs the policy. Logs failures.
///
/// A missing index is not an error: a tenant's first gateway can start before there is a snapshot.
pub(super) async fn load(directory: &Path, intake: &Intake) {
    let path = directory.to_owned();
    // Compared with the enforced generation, not with the floor: the index can be mounted before its chunks.
    let enforced = intake.enforced().0;
    let read = tokio::task::spawn_blocking(move || read_files(&path, enforced)).await;
    match read {
        Ok(Ok(Some(files))) => install(&files, intake),
        Ok(Ok(None)) | Err(_) => {}
        Ok(Err(error)) => tracing::warn!(error = chain(&error), "failed to read the mounted policy"),
    }
}

/// Reads the files of the snapshot. Returns `None` without an index, or if its generation is not above `enforced`.
fn read_files(directory: &Path, enforced: u64) -> io::Result<Option<BTreeMap<String, Vec<u8>>>> {
    let mut files = BTreeMap::new();
    let Some(index) = read_file(directory, INDEX_FILE)? else { return Ok(None) };
    files.insert(INDEX_FILE.to_owned(), index);
    if snapshot::read_index(&files).is_ok_and(|index| index.generation <= enforced) {
        return Ok(None);
    }
    for name in (0..CHUNK_SLOTS).map(chunk_name) {
        if let Some(bytes) = read_file(directory, &name)? {
            files.insert(name, bytes);
        }
    }
    Ok(Some(files))
}

/// Reads one file, or returns `None` if it does not exist.
fn read_file(directory: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    use io::Read as _;
    let file = match std::fs::File::open(directory.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    // No chunk is larger. One more byte makes the digest of the snapshot wrong, and a larger file cannot fill memory.
    file.take(MAX_CHUNK_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn install(files: &BTreeMap<String, Vec<u8>>, intake: &Intake) {
    match snapshot::read_index(files) {
        Ok(index) => intake.raise_floor(index.generation),
        Err(error) => {
            if let SnapshotError::LaterIndex { generation, .. } = error {
                intake.raise_floor(generation);
            }
            tracing::warn!(error = chain(&error), "failed to read the index of the mounted policy");
            return;
        }
    }
    match snapshot::read_policy(files) {
        Ok(decoded) => intake.install_mounted(decoded),
        // The floor is raised even then: no generation below the index will be enforced.
        Err(error) => tracing::warn!(error = chain(&error), "failed to assemble the mounted policy"),
    }
}
