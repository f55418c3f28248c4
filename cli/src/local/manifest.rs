//! Reads YAML as `kubectl apply -f` does: files and folders, several documents in a file; and remembers where everything is.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use granit_parser::{Event, Parser};
use mcp_fleet_admission::Path as FieldPath;
use serde::Deserialize as _;
use serde_json::Value;

/// Most bytes of all files together.
const MAX_BYTES: usize = 64 << 20;

/// Something that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    pub(crate) file: PathBuf,
    pub(crate) line: Option<usize>,
    pub(crate) text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, text } = self;
        match line {
            Some(line) => write!(f, "{}:{line}: {text}", file.display()),
            None => write!(f, "{}: {text}", file.display()),
        }
    }
}

/// One document.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) file: PathBuf,
    pub(crate) value: Value,
    lines: Lines,
}

/// Lines of the fields of a document, counted from 1.
#[derive(Clone, Debug, Default)]
struct Lines(BTreeMap<FieldPath, usize>);

impl Document {
    /// Returns the line of a field, or of the innermost one around it that is there.
    pub(crate) fn line(&self, path: &FieldPath) -> Option<usize> {
        (0..=path.0.len()).rev().find_map(|length| self.lines.0.get(&FieldPath(path.0[..length].to_vec())).copied())
    }
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifests {
    pub(crate) documents: Vec<Document>,
    /// Files that cannot be read, with the reason.
    pub(crate) problems: Vec<Problem>,
}

/// The contents of files, to notice changes.
pub(crate) type Contents = BTreeMap<PathBuf, Result<String, String>>;

/// Reads the files, and those in the folders, that end in `.yaml`, `.yml` or `.json`.
pub(crate) fn contents(paths: &[PathBuf]) -> Contents {
    let mut contents = Contents::new();
    let mut left = MAX_BYTES;
    for path in paths {
        match files(path) {
            Ok(files) => {
                for file in files {
                    let text = fs::read_to_string(&file).map_err(|error| error.to_string()).and_then(|text| {
                        left = left.checked_sub(text.len()).ok_or("the files are larger than 64 MiB together")?;
                        Ok(text)
                    });
                    contents.insert(file, text);
                }
            }
            Err(error) => {
                contents.insert(path.clone(), Err(error.to_string()));
            }
        }
    }
    contents
}

fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let is_manifest = |path: &PathBuf| {
        // What cannot be looked at, such as a link to nothing, is reported when it is read.
        path.metadata().map_or(true, |metadata| metadata.is_file())
            && path.extension().is_some_and(|it| ["yaml", "yml", "json"].iter().any(|known| it == *known))
    };
    let entries = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<PathBuf> = entries.into_iter().filter(is_manifest).collect();
    files.sort();
    Ok(files)
}

/// Parses all files.
pub(crate) fn parse(contents: &Contents) -> Manifests {
    let mut manifests = Manifests::default();
    for (file, text) in contents {
        let parsed = match text {
            Ok(text) => parse_file(file, text),
            Err(error) => Err((None, format!("failed to read the file: {error}"))),
        };
        match parsed {
            Ok(documents) => manifests.documents.extend(documents),
            Err((line, text)) => manifests.problems.push(Problem { file: file.clone(), line, text }),
        }
    }
    manifests
}

/// A problem of a file, with its line.
type At = (Option<usize>, String);

fn parse_file(file: &Path, text: &str) -> Result<Vec<Document>, At> {
    let mut all_lines = lines(text)?.into_iter();
    let mut documents = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let failed = |error: serde_yaml_ng::Error| (error.location().map(|it| it.line()), error.to_string());
        // Unlike the JSON type, this one refuses a key that is there twice.
        let value = serde_yaml_ng::Value::deserialize(document).map_err(failed)?;
        let lines = all_lines.next().unwrap_or_default();
        if value.is_null() {
            continue;
        }
        let value = serde_json::to_value(value).map_err(|error| (None, error.to_string()))?;
        documents.push(Document { file: file.to_owned(), value, lines });
    }
    Ok(documents)
}

/// A collection that is being read.
enum Open {
    Map { path: FieldPath, key: Option<FieldPath> },
    List { path: FieldPath, next: usize },
}

/// Returns the lines of the fields of each document.
fn lines(text: &str) -> Result<Vec<Lines>, At> {
    let mut documents = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| (Some(error.marker().line()), error.to_string()))?;
        let line = span.start.line();
        match event {
            Event::DocumentStart(..) => documents.push(Lines::default()),
            Event::MappingEnd | Event::SequenceEnd => drop(open.pop()),
            Event::Scalar(..) | Event::Alias(..) | Event::MappingStart(..) | Event::SequenceStart(..) => {
                let Some(Lines(known)) = documents.last_mut() else { continue };
                let scalar = if let Event::Scalar(text, ..) = &event { Some(text.as_ref()) } else { None };
                let path = place(&mut open, scalar, line, known);
                match (event, path) {
                    (Event::MappingStart(..), path) => {
                        open.push(Open::Map { path: path.unwrap_or_default(), key: None });
                    }
                    (Event::SequenceStart(..), path) => {
                        open.push(Open::List { path: path.unwrap_or_default(), next: 0 });
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Ok(documents)
}

/// Notes where a node is. Returns its path, or none if it is a key.
fn place(
    open: &mut [Open],
    scalar: Option<&str>,
    line: usize,
    known: &mut BTreeMap<FieldPath, usize>,
) -> Option<FieldPath> {
    match open.last_mut() {
        None => {
            known.insert(FieldPath::root(), line);
            Some(FieldPath::root())
        }
        Some(Open::List { path, next }) => {
            let item = path.item(*next);
            *next += 1;
            known.insert(item.clone(), line);
            Some(item)
        }
        Some(Open::Map { path, key }) => {
            if let Some(field) = key.take() {
                return Some(field);
            }
            let field = path.child(scalar.unwrap_or_default());
            known.insert(field.clone(), line);
            *key = Some(field);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Manifests {
        parse(&Contents::from([(PathBuf::from("a.yaml"), Ok(text.to_owned()))]))
    }

    #[test]
    fn every_field_of_every_document_has_a_line() {
        let manifests =
            read("kind: A\nspec:\n  tools:\n  - name: x\n  - {name: y,\n     class: Read}\n---\n---\nkind: B\n");
        assert_eq!(manifests.problems, []);
        let [first, second] = &manifests.documents[..] else { panic!("two documents") };
        assert_eq!(first.value["spec"]["tools"][1]["class"], "Read");
        let tool = FieldPath::root().child("spec").child("tools").item(1);
        assert_eq!(first.line(&tool), Some(5));
        assert_eq!(first.line(&tool.child("class")), Some(6));
        assert_eq!(first.line(&tool.child("missing")), Some(5), "the line of what is around it");
        assert_eq!(second.line(&FieldPath::root().child("kind")), Some(9));
    }

    #[test]
    fn a_file_that_is_not_yaml_is_a_problem_with_its_line() {
        for text in ["kind: A\nspec: [1,\nmore: }\n", "kind: A\nspec:\n  a: 1\n  a: 2\n"] {
            let manifests = read(text);
            assert!(manifests.documents.is_empty());
            assert!(manifests.problems[0].line.is_some_and(|line| line > 1), "{:?}", manifests.problems);
            assert!(manifests.problems[0].to_string().starts_with("a.yaml:"));
        }
    }

    #[test]
    fn a_folder_is_read_without_what_is_no_manifest() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.json", "README.md"] {
            fs::write(folder.path().join(name), "{}").unwrap();
        }
        fs::create_dir(folder.path().join("sub.yaml")).unwrap();
        let found = contents(&[folder.path().to_owned()]);
        let names: Vec<_> = found.keys().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.yml", "b.yaml", "c.json"]);
        let missing = contents(&[folder.path().join("missing.yaml")]);
        assert!(missing.values().all(Result::is_err));
    }
}
