use std::os::unix::fs::PermissionsExt;

use super::{key::key_path, *};
use crate::{Database, store::sqlite::Sqlite};

const ABOUT: &[&str] = &["secret", "default", "a"];

fn vault(seeds: &[u8]) -> Vault {
    let keys: Vec<_> = seeds.iter().map(|n| Zeroizing::new([*n; 32])).collect();
    Vault::of(&keys)
}

#[test]
fn what_is_sealed_opens_for_what_it_is_about_only() {
    let vault = vault(&[1]);
    let sealed = vault.seal(ABOUT, b"plain").unwrap();
    assert_eq!(*vault.open(ABOUT, &sealed).unwrap(), b"plain");
    assert!(!sealed.windows(5).any(|window| window == b"plain"));
    for other in [
        &["secret", "default", "b"][..],
        &["secret", "defaulta", ""],
        &["secret", "default"],
        &["secret", "default", "a", ""],
    ] {
        assert_eq!(vault.open(other, &sealed), Err(VaultError::Damaged));
    }
}

#[test]
fn what_was_changed_or_cut_off_does_not_open() {
    let vault = vault(&[1]);
    let sealed = vault.seal(ABOUT, b"plain").unwrap();
    for place in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[place] ^= 1;
        vault.open(ABOUT, &changed).unwrap_err();
        vault.open(ABOUT, &sealed[..place]).unwrap_err();
    }
}

#[test]
fn the_first_key_seals_and_each_opens() {
    let (old, both) = (vault(&[1]), vault(&[2, 1]));
    let by_old = old.seal(ABOUT, b"plain").unwrap();
    assert_eq!(*both.open(ABOUT, &by_old).unwrap(), b"plain");
    let by_new = both.renew(ABOUT, &by_old).unwrap().unwrap();
    assert_eq!(both.renew(ABOUT, &by_new), Ok(None));
    assert_eq!(*vault(&[2]).open(ABOUT, &by_new).unwrap(), b"plain");
    assert_eq!(old.open(ABOUT, &by_new), Err(VaultError::UnknownKey));
}

fn no_key(found: Result<Vault, StoreKeyError>) -> String {
    found.expect_err("a key was found").to_string()
}

#[test]
fn a_database_file_without_a_key_gets_one_that_only_its_owner_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet.db");
    let database = Database::Sqlite(file.clone());
    let sealed = find(None, &database, false)
        .unwrap()
        .seal(ABOUT, b"plain")
        .unwrap();
    let again = find(None, &database, true).unwrap();
    assert_eq!(*again.open(ABOUT, &sealed).unwrap(), b"plain");
    let path = key_path(&file);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    std::fs::remove_file(&path).unwrap();
    let error = no_key(find(None, &database, true));
    assert!(error.contains("put the file back"), "{error}");
    assert!(!path.exists(), "no other key was made");
}

#[test]
fn a_key_that_is_none_is_refused_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::Sqlite(folder.path().join("fleet.db"));
    let path = folder.path().join("store.key");
    let short = "ab".repeat(31);
    for text in ["", "\n", &short, &format!("{}\nxyz\n", "ab".repeat(32))] {
        std::fs::write(&path, text).unwrap();
        for given in [
            StoreKey::File(path.clone()),
            StoreKey::Text(Zeroizing::new(text.to_owned())),
        ] {
            assert!(!format!("{given:?}").contains(&short));
            let error = no_key(find(Some(&given), &database, false));
            assert!(error.contains("64 hex digits"), "{error}");
            assert!(!error.contains("abab"), "{error}");
        }
    }
    let twice = StoreKey::given(Some(path), Some("ab".repeat(32)));
    assert!(twice.unwrap_err().to_string().contains("twice"));
}

#[tokio::test]
async fn a_database_knows_its_keys_through_a_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("fleet.db")).await.unwrap();
    let prove = async |seeds: &[u8]| vault(seeds).prove(&store, "fleet.db").await;
    prove(&[1]).await.unwrap();
    let error = prove(&[2]).await.unwrap_err();
    assert!(matches!(error, StoreKeyError::Wrong { .. }), "{error}");
    prove(&[1, 2]).await.unwrap();
    prove(&[2, 1]).await.unwrap();
    prove(&[2]).await.unwrap_err();
    vault(&[2, 1]).finish_rotation(&store).await.unwrap();
    prove(&[2]).await.unwrap();
    prove(&[1]).await.unwrap_err();
}
