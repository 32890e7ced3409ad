use std::os::unix::fs::PermissionsExt;

use fleet_proto::v1::{Revocation, SecretValue, SessionKey, SetVersion, revocation::What};
use tempfile::TempDir;

use super::*;

const VALUE: &str = "pl4in-value";

fn version(kind: SetKind) -> Option<SetVersion> {
    Some(SetVersion {
        set: kind.into(),
        version: 3,
        tag: vec![9; 16],
    })
}

fn kept() -> Kept {
    let secret = SecretValue {
        project: "p".to_owned(),
        name: "n".to_owned(),
        value: VALUE.to_owned(),
    };
    let key = SessionKey {
        key: b"session-key-of-thirty-two-bytes!".to_vec(),
        seals_from_ms: 1,
    };
    let revocation = Revocation {
        what: Some(What::BearerSha256(vec![7; 32])),
        ..Revocation::default()
    };
    Kept {
        sets: vec![
            SetPart {
                version: version(SetKind::Secrets),
                secrets: vec![secret],
                ..SetPart::default()
            },
            SetPart {
                version: version(SetKind::SessionKeys),
                session_keys: vec![key],
                ..SetPart::default()
            },
            SetPart {
                version: version(SetKind::Revocations),
                revocations: vec![revocation],
                ..SetPart::default()
            },
        ],
        ring: vec![vec![1; 32]],
    }
}

fn key_file(folder: &TempDir, digits: &str) -> PathBuf {
    let path = folder.path().join(format!("key-{}", &digits[..2]));
    let lines: Vec<_> = digits.split(' ').map(|digit| digit.repeat(32)).collect();
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    path
}

fn under(folder: &TempDir, digits: &str) -> KeptSets {
    KeptSets::new(folder.path(), Some(&key_file(folder, digits))).unwrap()
}

fn open(folder: &TempDir) -> KeptSets {
    KeptSets::new(folder.path(), None).unwrap()
}

/// Everything on the disk, but for the keys.
fn on_disk(folder: &TempDir) -> Vec<u8> {
    let files = fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap());
    let files = files.filter(|file| !file.file_name().to_string_lossy().starts_with("key-"));
    files
        .flat_map(|file| {
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file:?}");
            fs::read(file.path()).unwrap()
        })
        .collect()
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[test]
fn everything_comes_back_under_its_key_and_nothing_is_readable() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(under(&folder, "aa").load(), Ok(Kept::default()));
    under(&folder, "aa").save(&kept()).unwrap();
    assert_eq!(under(&folder, "aa").load(), Ok(kept()));
    let bytes = on_disk(&folder);
    assert!(holds(&bytes, SEALED));
    for secret in [VALUE.as_bytes(), &kept().sets[1].session_keys[0].key] {
        assert!(!holds(&bytes, secret));
        // The search would find it.
        assert!(holds(&kept().encode_to_vec(), secret));
    }
}

#[test]
fn a_key_is_replaced_by_putting_a_new_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    under(&folder, "aa").save(&kept()).unwrap();
    let both = under(&folder, "bb aa");
    let found = both.load().unwrap();
    both.save(&found).unwrap();
    assert_eq!(under(&folder, "bb").load(), Ok(kept()));
}

#[test]
fn without_a_key_only_revocations_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder).save(&kept()).unwrap();
    let found = open(&folder).load().unwrap();
    assert_eq!(found.sets, [kept().sets.remove(2)]);
    assert_eq!(found.ring, kept().ring);
    assert!(!holds(&on_disk(&folder), VALUE.as_bytes()));
    // And go on where there is a key later, and back.
    let sealing = under(&folder, "aa");
    assert_eq!(sealing.load().unwrap().sets.len(), 1);
    sealing.save(&kept()).unwrap();
    assert!(!folder.path().join(PLAIN_NAME).exists());
    open(&folder).save(&kept()).unwrap();
    assert!(!holds(&on_disk(&folder), SEALED));
}

#[test]
fn a_file_that_cannot_be_used_is_no_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    under(&folder, "aa").save(&kept()).unwrap();
    let without = open(&folder).load().unwrap_err();
    assert!(without.contains("--state-key"), "{without}");
    let other = under(&folder, "cc").load().unwrap_err();
    assert!(other.contains("another one"), "{other}");
    let path = folder.path().join(SEALED_NAME);
    let whole = fs::read(&path).unwrap();
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        fs::write(&path, &changed).unwrap();
        under(&folder, "aa").load().unwrap_err();
        fs::write(&path, &whole[..place]).unwrap();
        under(&folder, "aa").load().unwrap_err();
    }
    fs::remove_file(&path).unwrap();
    open(&folder).save(&kept()).unwrap();
    let path = folder.path().join(PLAIN_NAME);
    let mut changed = fs::read(&path).unwrap();
    changed[PLAIN.len() + 4] ^= 1;
    fs::write(&path, changed).unwrap();
    assert!(open(&folder).load().unwrap_err().contains("checksum"));
}

#[test]
fn what_is_no_key_is_refused_without_showing_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    for bad in ["", "\n", "secret-password", &"a".repeat(63)] {
        fs::write(&path, bad).unwrap();
        let error = KeptSets::new(folder.path(), Some(&path)).err().unwrap();
        assert!(
            error.contains("64 hex digits") && !error.contains("password"),
            "{error}"
        );
    }
    fs::remove_file(&path).unwrap();
    let error = KeptSets::new(folder.path(), Some(&path)).err().unwrap();
    assert!(error.contains("openssl rand -hex 32"), "{error}");
}
