//! Files of configuration ([`read_yaml`]): each problem has a place in the file, and what is valid is written and read
//! back as it is.

use fleet_proto::{
    read::{Documents, Located, read_yaml},
    validate::validate,
    write::write_yaml,
};

/// The bytes as a file.
///
/// # Panics
/// A law is broken.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let documents = read(text);
    let lines = text.matches(['\n', '\r']).count() + 1;
    let placed = |problem: &Located| {
        let place = problem.location.as_ref();
        // One past the last line is the end of the file.
        place.is_none_or(|at| (1..=lines + 1).contains(&at.line) && at.column > 0)
    };
    for problem in &documents.problems {
        assert!(placed(problem), "{lines} lines, and {problem}");
    }
    match validate(documents.resources()) {
        Err(problems) => {
            for problem in &problems {
                let located = documents.locate(problem);
                assert!(placed(&located), "{lines} lines, and {located}");
            }
        }
        Ok(valid) => {
            let written = write_yaml(valid.iter().map(|(_, entry)| entry.resource()));
            let again = read(&written);
            assert!(
                again.problems.is_empty(),
                "{:?} in\n{written}",
                again.problems
            );
            let again = validate(again.resources()).expect("what was valid is valid");
            assert!(again == valid, "{text}\nis written as\n{written}");
        }
    }
}

fn read(text: &str) -> Documents {
    let mut documents = Documents::default();
    read_yaml("f", text, &mut documents);
    documents
}
