//! What is read back from a disk to which anything may have happened.

use fleet_proto::{
    v1::{Backend, HttpBackend, Resource, backend::Transport, resource},
    validate::validate,
};
use tempfile::TempDir;

use super::*;

fn held(revision: u64) -> Held {
    let backends = (0..revision).map(|n| {
        let http = HttpBackend {
            url: format!("http://127.0.0.1:{}/mcp", 1000 + n),
            ..HttpBackend::default()
        };
        let backend = Backend {
            name: format!("b{n}"),
            transport: Some(Transport::Http(http)),
            ..Backend::default()
        };
        Resource {
            kind: Some(resource::Kind::Backend(backend)),
        }
    });
    let version = Version {
        lineage: "l".to_owned(),
        revision,
    };
    let set = validate(backends).unwrap();
    Held { version, set }
}

/// Revisions 1 to `last`, saved one after the other.
fn saved(last: u64) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let last_good = LastGood::new(folder.path());
    for revision in 1..=last {
        last_good.save(&held(revision)).unwrap();
    }
    folder
}

fn load(folder: &TempDir) -> (Option<(u64, usize)>, Vec<String>) {
    let found = LastGood::new(folder.path()).load();
    let newest = found.newest.map(|(kept, generation)| {
        let revision = kept.version.revision;
        assert!(kept.version == held(revision).version && kept.set == held(revision).set);
        (revision, generation)
    });
    (newest, found.problems)
}

fn damage(folder: &TempDir, generation: usize, how: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.path().join(GENERATIONS[generation]);
    let mut bytes = fs::read(&path).unwrap();
    how(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_newest_of_two_generations_is_read() {
    let folder = saved(3);
    assert_eq!(load(&folder), (Some((3, 0)), vec![]));
    fs::remove_file(folder.path().join(GENERATIONS[0])).unwrap();
    assert_eq!(
        load(&folder),
        (Some((2, 1)), vec![]),
        "killed between two renames"
    );
    assert_eq!(load(&tempfile::tempdir().unwrap()), (None, vec![]));
}

#[test]
fn no_damage_to_any_byte_goes_unnoticed() {
    let folder = saved(2);
    let length = fs::read(folder.path().join(GENERATIONS[0])).unwrap().len();
    for at in 0..length {
        damage(&folder, 0, |bytes| bytes[at] ^= 0x10);
        let (newest, problems) = load(&folder);
        assert_eq!((newest, problems.len()), (Some((1, 1)), 1), "byte {at}");
        damage(&folder, 0, |bytes| bytes[at] ^= 0x10);
    }
    for end in [0, 1, length / 2, length - 1] {
        let folder = saved(2);
        damage(&folder, 0, |bytes| bytes.truncate(end));
        assert_eq!(load(&folder).0, Some((1, 1)), "cut to {end}");
    }
    damage(&folder, 0, |bytes| bytes.push(0));
    assert_eq!(load(&folder).0, Some((1, 1)));
    damage(&folder, 1, Vec::clear);
    let (newest, problems) = load(&folder);
    assert_eq!((newest, problems.len()), (None, 2));
    assert!(
        problems[0].contains("last-good.1: it is damaged"),
        "{problems:?}"
    );
}

#[test]
fn what_is_well_kept_and_not_valid_is_not_used() {
    let folder = saved(2);
    damage(&folder, 0, |bytes| {
        let body = bytes.len() - 32;
        let at = bytes.windows(7).position(|w| w == b"http://").unwrap();
        bytes[at..at + 7].copy_from_slice(b"hxxp://");
        let checksum = Hash::of(&bytes[..body]);
        bytes[body..].copy_from_slice(&checksum.0);
    });
    let (newest, problems) = load(&folder);
    assert_eq!(newest, Some((1, 1)));
    assert!(
        problems[0].contains("does not fit this version"),
        "{problems:?}"
    );
}

#[test]
fn a_file_left_aside_by_a_kill_changes_nothing_and_is_written_over() {
    let folder = saved(2);
    fs::write(folder.path().join(ASIDE), b"mcp-fleet last good 1\nhalf").unwrap();
    assert_eq!(load(&folder), (Some((2, 0)), vec![]));
    LastGood::new(folder.path()).save(&held(3)).unwrap();
    assert_eq!(load(&folder), (Some((3, 0)), vec![]));
    assert!(!folder.path().join(ASIDE).exists());
}

#[test]
fn a_damaged_file_does_not_take_the_place_of_the_good_one_before_it() {
    let folder = saved(2);
    damage(&folder, 0, Vec::clear);
    let last_good = LastGood::new(folder.path());
    assert_eq!(last_good.load().newest.unwrap().0.version.revision, 1);
    last_good.save(&held(3)).unwrap();
    damage(&folder, 0, Vec::clear);
    assert_eq!(load(&folder).0, Some((1, 1)));
}

#[test]
fn a_disk_that_takes_nothing_keeps_what_was_there() {
    let folder = saved(2);
    // Also where this runs as root: nothing can be created under this name.
    fs::create_dir(folder.path().join(ASIDE)).unwrap();
    LastGood::new(folder.path()).save(&held(3)).unwrap_err();
    assert_eq!(load(&folder), (Some((2, 0)), vec![]));
}

#[test]
fn two_data_planes_do_not_write_to_one_directory() {
    let folder = saved(1);
    let (one, other) = (LastGood::new(folder.path()), LastGood::new(folder.path()));
    one.save(&held(2)).unwrap();
    let error = other.save(&held(3)).unwrap_err();
    assert!(error.to_string().contains("another data plane"), "{error}");
    drop(one);
    other.save(&held(3)).unwrap();
    assert_eq!(load(&folder).0, Some((3, 0)));
}

#[test]
fn only_the_owner_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = saved(1);
    let file = fs::metadata(folder.path().join(GENERATIONS[0])).unwrap();
    assert_eq!(file.permissions().mode() & 0o077, 0);
}
