//! Files and directories, or stdin, to documents.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use fleet_proto::read::{Documents, Located, read_yaml};

use crate::failure::Failure;

/// The text of a file, and what to call it in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    label: String,
    text: String,
}

/// Reads files, directories (their `*.yaml`, `*.yml` and `*.json`, in order of
/// names) and `-` (stdin).
///
/// # Errors
/// One of them cannot be read, or a directory holds no such file.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut bytes = Vec::new();
            io::stdin()
                .read_to_end(&mut bytes)
                .map_err(|e| cannot("stdin", &e))?;
            sources.push(source("stdin".to_owned(), bytes)?);
            continue;
        }
        for file in files(path)? {
            let label = file.display().to_string();
            let bytes = fs::read(&file).map_err(|e| cannot(&label, &e))?;
            sources.push(source(label, bytes)?);
        }
    }
    Ok(sources)
}

/// The files that a path stands for.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let label = path.display().to_string();
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| cannot(&label, &e))? {
        let file = entry.map_err(|e| cannot(&label, &e))?.path();
        let known = matches!(
            file.extension().and_then(|e| e.to_str()),
            Some("yaml" | "yml" | "json")
        );
        // Editors keep their own files beside the real ones.
        let hidden = file
            .file_name()
            .is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if known && !hidden && file.is_file() {
            found.push(file);
        }
    }
    if found.is_empty() {
        return Err(Failure::Usage(format!(
            "{label} holds no .yaml, .yml or .json file"
        )));
    }
    found.sort();
    Ok(found)
}

/// The documents of all sources, with their problems.
pub(crate) fn documents(sources: &[Source]) -> Documents {
    let mut documents = Documents::default();
    for source in sources {
        read_yaml(&source.label, &source.text, &mut documents);
    }
    documents
}

/// Problems as lines, in the order of their places, each once.
pub(crate) fn lines(mut problems: Vec<Located>) -> Vec<String> {
    problems.sort_by_key(|p| {
        p.location
            .as_ref()
            .map(|l| (l.file.clone(), l.line, l.column))
    });
    let mut lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.dedup();
    lines
}

/// Refuses documents that hold nothing: a file that was lost must not look like
/// a wish.
pub(crate) fn require_some(documents: &Documents, paths: &[PathBuf]) -> Result<(), Failure> {
    if documents.documents.is_empty() && documents.problems.is_empty() {
        let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        return Err(Failure::Invalid(vec![format!(
            "{}: holds no document",
            names.join(", ")
        )]));
    }
    Ok(())
}

fn source(label: String, bytes: Vec<u8>) -> Result<Source, Failure> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { label, text }),
        Err(_) => Err(Failure::Invalid(vec![format!("{label}: not UTF-8")])),
    }
}

fn cannot(label: &str, error: &io::Error) -> Failure {
    Failure::Usage(format!("cannot read {label}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_configuration_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.json", "notes.md", ".b.yaml.swp.yaml"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("d.yaml")).unwrap();
        let names: Vec<String> = files(dir.path())
            .unwrap()
            .iter()
            .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["a.yml", "b.yaml", "c.json"]);
    }

    #[test]
    fn an_empty_directory_and_a_missing_file_are_usage_errors() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(files(dir.path()).unwrap_err().exit_code(), 2);
        assert_eq!(
            read(&[dir.path().join("none.yaml")])
                .unwrap_err()
                .exit_code(),
            2
        );
    }

    #[test]
    fn every_example_is_valid() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        for file in files(&examples).unwrap() {
            let documents = documents(&read(std::slice::from_ref(&file)).unwrap());
            assert!(!documents.documents.is_empty(), "{}", file.display());
            if let Err(problems) = documents.check() {
                panic!("{problems:#?}");
            }
        }
    }
}
