//! Edits against a real control plane, by an editor that is a function.

use std::{cell::RefCell, fs};

use fleet_proto::{
    key::Kind,
    read::{Documents, read_yaml},
};
use tokio::runtime::Handle;

use super::*;
use crate::bench::Bench;

const A: &str =
    "{ kind: Backend, name: a, http: { url: 'http://127.0.0.1:1/mcp' }, timeout: 30s }\n";

fn key() -> Key {
    Key::new("", Kind::Backend, "a")
}

/// Replaces one text by another at each opening; remembers what was shown.
struct Typist {
    edits: RefCell<Vec<(&'static str, &'static str)>>,
    shown: RefCell<Vec<String>>,
}

impl Typist {
    fn new(edits: &[(&'static str, &'static str)]) -> Self {
        Self {
            edits: RefCell::new(edits.iter().rev().copied().collect()),
            shown: RefCell::default(),
        }
    }

    fn open(&self, path: &Path) -> Result<(), Failure> {
        let text = fs::read_to_string(path).unwrap();
        let (from, to) = self
            .edits
            .borrow_mut()
            .pop()
            .expect("opened once too often");
        fs::write(path, text.replace(from, to)).unwrap();
        self.shown.borrow_mut().push(text);
        Ok(())
    }
}

#[tokio::test]
async fn an_edit_is_a_revision_of_its_own() {
    let mut bench = Bench::new().await;
    bench.apply(A).await;
    let typist = Typist::new(&[(":1/mcp", ":2/mcp")]);
    let done = edit(&mut bench.client, &key(), "port", |p| typist.open(p))
        .await
        .unwrap();
    assert_eq!(done.unwrap().revision, 2);
    let typist = Typist::new(&[("", "")]);
    let none = edit(&mut bench.client, &key(), "", |p| typist.open(p)).await;
    assert_eq!(none.unwrap(), None, "nothing was changed");
    bench.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_shown_until_it_is_right() {
    let mut bench = Bench::new().await;
    bench.apply(A).await;
    let typist = Typist::new(&[
        ("timeout: 30s", "timeuot: 30s"),
        ("timeuot: 30s", "timeout: 5s"),
    ]);
    let done = edit(&mut bench.client, &key(), "", |p| typist.open(p)).await;
    assert_eq!(done.unwrap().unwrap().revision, 2);
    let shown = typist.shown.borrow();
    assert!(shown[1].contains("was not accepted"), "{}", shown[1]);
    bench.stop().await;
}

#[tokio::test]
async fn saving_a_mistake_twice_gives_up() {
    let mut bench = Bench::new().await;
    bench.apply(A).await;
    let typist = Typist::new(&[("timeout: 30s", "timeout: soon"), ("", "")]);
    let failure = edit(&mut bench.client, &key(), "", |p| typist.open(p)).await;
    assert_eq!(failure.unwrap_err().exit_code(), 3);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wrote_meanwhile_is_not_overwritten() {
    let mut bench = Bench::new().await;
    bench.apply(A).await;
    let mut other = bench.client.clone();
    let typist = Typist::new(&[(":1/mcp", ":2/mcp")]);
    let open = |path: &Path| {
        let mut documents = Documents::default();
        read_yaml("theirs", &A.replace(":1/mcp", ":3/mcp"), &mut documents);
        let how = How::default();
        let mut client = other.clone();
        let theirs = change::submit(&mut client, &documents, &how);
        tokio::task::block_in_place(|| Handle::current().block_on(theirs)).unwrap();
        typist.open(path)
    };
    let failure = edit(&mut bench.client, &key(), "", open).await;
    assert_eq!(failure.unwrap_err().exit_code(), 4);
    let stored = write_yaml(&change::stored(&mut other).await.unwrap());
    assert!(stored.contains(":3/mcp"), "{stored}");
    drop(other);
    bench.stop().await;
}

#[test]
fn the_editor_is_what_the_environment_names() {
    let pick = |set: &[(&str, &str)]| {
        editor(|name| {
            let found = set.iter().find(|(n, _)| *n == name);
            found.map(|(_, v)| (*v).to_owned())
        })
    };
    assert_eq!(pick(&[("VISUAL", "code -w"), ("EDITOR", "ed")]), "code -w");
    assert_eq!(pick(&[("VISUAL", ""), ("EDITOR", "ed")]), "ed");
    assert_eq!(pick(&[]), "vi");
}

#[test]
fn an_editor_may_have_arguments_and_its_failure_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a file.yaml");
    fs::write(&path, "old").unwrap();
    open("sed -i s/old/new/", &path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    let failure = open("false", &path).unwrap_err();
    assert!(failure.to_string().contains("$EDITOR"), "{failure}");
}
