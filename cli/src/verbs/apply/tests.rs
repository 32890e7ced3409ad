//! Sets of files against a real control plane.

use fleet_proto::read::read_yaml;

use super::*;
use crate::bench::Bench;

const FIRST: u64 = 1;

fn backend(name: &str) -> String {
    format!("{{ kind: Backend, name: {name}, http: {{ url: 'http://127.0.0.1:1/mcp' }} }}\n---\n")
}

fn web(allow_empty: bool) -> SetFlags {
    SetFlags {
        applyset: Some("web".to_owned()),
        prune: true,
        allow_empty,
    }
}

async fn apply(
    bench: &mut Bench,
    text: &str,
    set: &SetFlags,
    how: How,
) -> Result<ApplyResponse, Failure> {
    let mut documents = Documents::default();
    read_yaml("f.yaml", text, &mut documents);
    let files = FileFlags {
        files: vec!["f.yaml".into()],
    };
    set.prepare(&mut documents, &files)?;
    submit(&mut bench.client, &documents, set, how).await
}

#[tokio::test]
async fn what_leaves_a_set_goes_in_the_revision_of_what_comes() {
    let mut bench = Bench::new().await;
    bench.apply(&backend("free")).await;
    let both = format!("{}{}", backend("a"), backend("b"));
    apply(&mut bench, &both, &web(false), How::default())
        .await
        .unwrap();
    let dry = How {
        dry_run: true,
        ..How::default()
    };
    let next = format!("{}{}", backend("b"), backend("c"));
    apply(&mut bench, &next, &web(false), dry).await.unwrap();
    assert_eq!(bench.names().await.len(), 3);
    let done = apply(&mut bench, &next, &web(false), How::default())
        .await
        .unwrap();
    assert_eq!(done.revision, FIRST + 2);
    let names = ["backend/b", "backend/c", "backend/free"];
    assert_eq!(bench.names().await, names);
    let again = apply(&mut bench, &next, &web(false), How::default())
        .await
        .unwrap();
    assert!(!again.changed, "{again:?}");
    bench.stop().await;
}

#[tokio::test]
async fn empty_files_prune_nothing_unless_that_is_said() {
    let mut bench = Bench::new().await;
    apply(&mut bench, &backend("a"), &web(false), How::default())
        .await
        .unwrap();
    let refused = apply(&mut bench, "# lost\n", &web(false), How::default()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.exit_code(), 3);
    assert!(refused.to_string().contains("--allow-empty"), "{refused}");
    // A file that cannot be read in full has not lost its documents either.
    let broken = apply(&mut bench, "kind: Backend\n\tx", &web(true), How::default()).await;
    assert_eq!(broken.unwrap_err().exit_code(), 3);
    assert_eq!(bench.names().await, ["backend/a"]);
    apply(&mut bench, "# gone\n", &web(true), How::default())
        .await
        .unwrap();
    assert!(bench.names().await.is_empty());
    bench.stop().await;
}

#[tokio::test]
async fn an_expected_revision_is_not_tried_again() {
    let mut bench = Bench::new().await;
    bench.apply(&backend("a")).await;
    let old = How {
        expect_revision: Some(FIRST - 1),
        ..How::default()
    };
    let failure = apply(&mut bench, &backend("b"), &web(false), old).await;
    assert_eq!(failure.unwrap_err().exit_code(), 4);
    bench.stop().await;
}
