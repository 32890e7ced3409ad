//! The context file: its form, its place, its permissions.

use super::*;

fn full() -> Contexts {
    let mut contexts = Contexts::default();
    for name in ["local", "prod"] {
        contexts.put(name, context(name));
    }
    contexts
}

fn context(token: &str) -> Context {
    Context {
        control_plane: Some("http://127.0.0.1:8182".to_owned()),
        admin_token: Some(token.to_owned()),
        gateway: Some("http://127.0.0.1:8080/mcp".to_owned()),
        ca: None,
        insecure: false,
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_saved_context_is_private_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/context.json");
    save(&path, &Contexts::default()).unwrap();
    save(&path, &full()).unwrap();
    assert_eq!(load(&path).unwrap(), full());
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(
        fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

#[test]
fn a_context_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("context.json");
    save(&path, &full()).unwrap();
    for bits in [0o640, 0o604, 0o660] {
        fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
        let error = load(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}

#[test]
fn no_file_is_no_context() {
    let dir = tempfile::tempdir().unwrap();
    let none = load(&dir.path().join("none.json")).unwrap();
    assert_eq!(none, Contexts::default());
    assert_eq!(none.get(None), None);
}

#[test]
fn the_place_follows_the_environment() {
    let place = |set: &[(&str, &str)]| {
        path_from(|name| {
            set.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| OsString::from(v))
        })
    };
    let at = |path: &str| Some(PathBuf::from(path));
    assert_eq!(
        place(&[("MCP_FLEET_CONTEXT", "/x.json"), ("HOME", "/h")]),
        at("/x.json")
    );
    assert_eq!(
        place(&[("XDG_CONFIG_HOME", "/c"), ("HOME", "/h")]),
        at("/c/mcp-fleet/context.json")
    );
    assert_eq!(
        place(&[("XDG_CONFIG_HOME", "c"), ("HOME", "/h")]),
        at("/h/.config/mcp-fleet/context.json")
    );
    assert_eq!(place(&[("HOME", "")]), None);
}

#[test]
fn a_file_of_a_single_context_is_that_context() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("context.json");
    let text = serde_json::to_vec(&context("old")).unwrap();
    write_private(&path, &text).unwrap();
    let mut contexts = load(&path).unwrap();
    assert_eq!(contexts.get(None), Some((UNNAMED, &context("old"))));
    contexts.put("prod", context("new"));
    save(&path, &contexts).unwrap();
    assert_eq!(load(&path).unwrap(), contexts);
    // Whoever reads one context finds the chosen one.
    let whole: Context = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(whole, context("new"));
}

#[test]
fn contexts_are_chosen_and_forgotten_by_name() {
    let mut contexts = full();
    assert_eq!(contexts.current(), Some("prod"));
    assert!(!contexts.choose("nowhere"));
    assert!(contexts.choose("local"));
    assert_eq!(contexts.get(None), Some(("local", &context("local"))));
    assert_eq!(contexts.get(Some("prod")), Some(("prod", &context("prod"))));
    assert!(contexts.remove("local"));
    assert_eq!((contexts.get(None), contexts.iter().count()), (None, 1));
}

#[test]
fn a_token_is_not_in_what_is_logged() {
    assert!(!format!("{:?}", full()).contains("admin_token"));
}
