//! A control plane starts with the store key of its database, or not at all.

use super::{shared::on, *};
use fleet_tests::postgres::cluster;

use crate::{StartError, StoreKey};

fn key(byte: &str) -> Option<StoreKey> {
    StoreKey::given(None, Some(byte.repeat(32))).unwrap()
}

async fn refused(settings: Settings) -> String {
    match start(settings).await {
        Err(error @ (StartError::StoreKey(_) | StartError::Settings(_))) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it has started"),
    }
}

#[tokio::test]
async fn a_database_starts_with_its_own_store_key_only() {
    let folder = tempfile::tempdir().unwrap();
    let with = |store_key| Settings {
        store_key,
        ..settings(&folder)
    };
    start(with(key("aa"))).await.unwrap().shutdown().await;
    let error = refused(with(key("bb"))).await;
    assert!(error.contains("not the one of database"), "{error}");
    let error = refused(with(None)).await;
    assert!(error.contains("there is none in"), "{error}");
    start(with(key("aa"))).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_new_store_key_takes_over_after_one_start_with_both() {
    let folder = tempfile::tempdir().unwrap();
    let with = |text: String| Settings {
        store_key: StoreKey::given(None, Some(text)).unwrap(),
        ..settings(&folder)
    };
    let (old, new) = ("aa".repeat(32), "bb".repeat(32));
    for text in [old.clone(), format!("{new}\n{old}\n"), new] {
        start(with(text)).await.unwrap().shutdown().await;
    }
    refused(with(old)).await;
}

#[tokio::test]
async fn a_postgres_needs_a_store_key_and_the_same_one_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    let url = cluster().database(name).await.unwrap();
    let error = refused(Settings {
        store_key: None,
        ..on(&url)
    })
    .await;
    assert!(
        error.contains("openssl rand -hex 32") && error.contains("--store-key"),
        "{error}"
    );
    let plane = start(on(&url)).await.unwrap();
    let error = refused(Settings {
        store_key: key("bb"),
        ..on(&url)
    })
    .await;
    assert!(error.contains("not the one of database"), "{error}");
    start(on(&url)).await.unwrap().shutdown().await;
    plane.shutdown().await;
}
