//! What is written is read back; what is damaged is not.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn items(kind: &discover::Kind, texts: &[&str]) -> List {
    let text = format!("{{\"{}\":[{}]}}", kind.member, texts.join(","));
    entries::kept(kind, &Bytes::from(text)).unwrap()
}

fn offered() -> (About, Lists) {
    let [tools, prompts, resources, templates] = discover::KINDS;
    let tools = items(
        tools,
        &[
            r#"{"name":"a","inputSchema":{"type":"object","properties":{"r":{"type":"string","x-mcp-header":"R"}}},"n":1.10}"#,
            r#"{"name":"b\"é"}"#,
        ],
    );
    let lists = Lists {
        params: discover::mirrored(&tools),
        tools,
        prompts: items(prompts, &[r#"{"name":"p"}"#]),
        resources: items(resources, &[r#"{"uri":"file:///x","name":"x"}"#]),
        templates: items(templates, &[r#"{"uriTemplate":"file:///{p}","name":"t"}"#]),
        ttl: Some(Duration::from_secs(7)),
        public: true,
    };
    let capabilities = RawValue::from_string(r#"{"tools":{}}"#.to_owned()).unwrap();
    let about = About {
        era: Some(Era::Legacy),
        capabilities: Some(capabilities),
        instructions: Some("be \"kind\"".to_owned()),
    };
    (about, lists)
}

fn kept(folder: &Path) -> Kept {
    let settings = Settings {
        data_dir: Some(folder.to_owned()),
        ..Settings::default()
    };
    Kept::of(&settings).unwrap()
}

#[test]
fn a_catalogue_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let kept = kept(folder.path());
    let (about, lists) = offered();
    assert_eq!(lists.params.len(), 1);
    let name = Hash::of(b"backend");
    assert!(kept.load(name).is_none());
    kept.save(name, &about, &lists).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&kept.path(name)), mode(&kept.directory)),
        (0o600, 0o700)
    );
    let (read, same) = kept.load(name).unwrap();
    assert_eq!(same, lists);
    assert_eq!(
        (read.era, read.instructions),
        (about.era, about.instructions)
    );
    let text = |raw: Option<Box<RawValue>>| raw.unwrap().get().to_owned();
    assert_eq!(text(read.capabilities), text(about.capabilities));

    // Replaced whole, and gone with its backend.
    kept.save(name, &About::default(), &Lists::default())
        .unwrap();
    assert_eq!(kept.load(name).unwrap().1, Lists::default());
    kept.retain(&HashSet::from([name.to_string()])).unwrap();
    assert!(kept.load(name).is_some());
    kept.retain(&HashSet::new()).unwrap();
    assert!(kept.load(name).is_none());
}

#[test]
fn what_is_damaged_or_too_large_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let kept = kept(folder.path());
    let (about, lists) = offered();
    let name = Hash::of(b"backend");
    kept.save(name, &about, &lists).unwrap();
    let whole = fs::read(kept.path(name)).unwrap();
    for at in [0, FORMAT.len() + 3, whole.len() / 2, whole.len() - 2] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(kept.path(name), damaged).unwrap();
        assert!(kept.load(name).is_none(), "byte {at}");
    }
    fs::write(kept.path(name), &whole[..whole.len() - 1]).unwrap();
    assert!(kept.load(name).is_none(), "cut off");

    let text = format!(r#"{{"name":"{}"}}"#, "x".repeat(LARGEST as usize));
    let large = Lists {
        tools: items(discover::KINDS[0], &[&text]),
        ..Lists::default()
    };
    fs::remove_file(kept.path(name)).unwrap();
    kept.save(name, &about, &large).unwrap();
    assert!(kept.load(name).is_none());
}

#[test]
fn a_link_that_waits_where_a_file_is_written_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let kept = kept(folder.path());
    let (about, lists) = offered();
    let name = Hash::of(b"backend");
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    fs::create_dir(&kept.directory).unwrap();
    let aside = kept.path(name).with_extension("tmp");
    std::os::unix::fs::symlink(&victim, aside).unwrap();
    kept.save(name, &about, &lists).unwrap();
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    assert!(kept.load(name).is_some());
}
