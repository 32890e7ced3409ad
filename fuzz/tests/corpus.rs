//! Every file of the corpus through its target: what was found once stays found.

use std::{fs, panic, path::Path};

use fleet_fuzz::TARGETS;

#[test]
fn no_file_of_the_corpus_breaks_a_law() {
    let mut broken = Vec::new();
    for (name, check) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut checked = 0;
        for file in files {
            let path = file.unwrap().path();
            let data = fs::read(&path).unwrap();
            if panic::catch_unwind(|| check(&data)).is_err() {
                broken.push(path);
            }
            checked += 1;
        }
        assert!(checked > 2, "{} is nearly empty", folder.display());
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_folder_of_the_corpus_has_a_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for folder in fs::read_dir(corpus).unwrap() {
        let name = folder.unwrap().file_name();
        assert!(
            TARGETS.iter().any(|(target, _)| name == *target),
            "{} has no target",
            name.display()
        );
    }
}
