use fleet_proto::{
    hash::Hash,
    key::{Key, Kind},
};

use super::{cell::IndexCell, *};
use crate::{
    auth::Auth,
    backend::{Backend, Parts},
    call::WorkerId,
    catalog::{About, Catalog, Lists, epoch::Epoch},
    table::Naming,
    telemetry::Metrics,
    upstream::Upstream,
};

fn list(id: &str, values: &[&str]) -> List {
    let entry = |value: &&str| match id {
        "name" => format!(r#"{{"name":"{value}","x":1.10}}"#),
        _ => format!(r#"{{"name":"x","{id}":"{value}"}}"#),
    };
    List::of(id, values.iter().map(entry))
}

fn backend(name: &str, epoch: &Arc<Epoch>, lists: Option<Lists>) -> Arc<Backend> {
    let key = Arc::new(Key::new("default", Kind::Backend, name));
    let catalog = Catalog::new(epoch.clone(), None);
    if let Some(lists) = lists {
        catalog.told(About::default(), lists);
    }
    Arc::new(Backend::new(Parts {
        serial: 1,
        fingerprint: Hash::of(b""),
        runtime: Hash::of(b""),
        timeout: Duration::from_secs(1),
        max_duration: Duration::from_secs(1),
        upstream: Upstream::broken(name.to_owned(), "a test has no server".to_owned()),
        catalog,
        metrics: Metrics::new(WorkerId(0).0).backend(&key),
        key,
    }))
}

fn gateway(naming: Naming, backends: Vec<(&str, Lists)>, owner: Option<usize>) -> Gateway {
    let epoch = Arc::default();
    let backends: Vec<_> = backends
        .into_iter()
        .map(|(name, lists)| backend(name, &epoch, Some(lists)))
        .collect();
    Gateway {
        id: "default/g".to_owned(),
        path: "/mcp".to_owned(),
        serials: Gateway::serials_of(&backends),
        backends,
        naming,
        auth: Arc::new(Auth::Open),
        hosts: Vec::new(),
        origins: Vec::new(),
        resource_owner: owner,
        method_owners: Vec::new(),
        resume_grace: Duration::ZERO,
        epoch,
        scope: crate::sealed::scope::Scope::of_tests(),
        index: IndexCell::default(),
        versions: Default::default(),
    }
}

fn tools(names: &[&str]) -> Lists {
    Lists {
        tools: list("name", names),
        ..Lists::default()
    }
}

fn templates(uris: &[&str]) -> Lists {
    Lists {
        templates: list("uriTemplate", uris),
        ..Lists::default()
    }
}

fn prefixed() -> Naming {
    Naming::Prefixed {
        separator: "__".to_owned(),
    }
}

/// The response to `tools/list`.
fn message(gateway: &Gateway, era: Era) -> Vec<u8> {
    let parts = gateway.index().listing(Method::ToolsList, era, b"7");
    parts.unwrap().concat()
}

/// Exposed names, in order.
fn listed(gateway: &Gateway) -> Vec<String> {
    let message: serde_json::Value =
        serde_json::from_slice(&message(gateway, Era::Legacy)).unwrap();
    let tools = message["result"]["tools"].as_array().unwrap().iter();
    tools
        .map(|tool| tool["name"].as_str().unwrap().to_owned())
        .collect()
}

fn owner_of(gateway: &Gateway, name: &str) -> Option<(usize, String)> {
    let index = gateway.index();
    let Named { backend, literal } = index.tool_names.get(name)?;
    Some((*backend, serde_json::from_slice(literal).unwrap()))
}

#[test]
fn entries_keep_every_byte_but_their_name() {
    let gateway = gateway(prefixed(), vec![("a", tools(&["echo"]))], None);
    let text = message(&gateway, Era::Legacy);
    let entries = r#""tools":[{"name":"a__echo","x":1.10}]}}"#;
    let expected = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{{entries}"#);
    assert_eq!(String::from_utf8(text).unwrap(), expected);
    let text = String::from_utf8(message(&gateway, Era::Modern)).unwrap();
    assert!(text.starts_with(r#"{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","#));
    assert!(text.ends_with(&format!(",{entries}")), "{text}");
}

#[test]
fn both_eras_get_the_same_entries_and_not_copies() {
    let gateway = gateway(prefixed(), vec![("a", tools(&["echo"]))], None);
    let index = gateway.index();
    let entries = |era| index.listing(Method::ToolsList, era, b"1").unwrap()[1].as_ptr();
    assert_eq!(entries(Era::Legacy), entries(Era::Modern));
    let before = entries(Era::Legacy);
    // Other hints, the same lists.
    gateway.backends[0].catalog.failed("gone".to_owned());
    let after = gateway.index();
    assert!(!Arc::ptr_eq(&index, &after));
    let parts = after.listing(Method::ToolsList, Era::Modern, b"1").unwrap();
    assert_eq!(parts[1].as_ptr(), before);
}

#[tokio::test]
async fn a_long_list_is_made_aside_and_is_as_new_as_what_was_told_before() {
    let names: Vec<_> = (0..2_000).map(|n| format!("tool-{n:04}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let gateway = Arc::new(gateway(prefixed(), vec![("a", tools(&names))], None));
    assert!(gateway.latest_index().is_none());
    let first = gateway.fresh_index().await;
    assert!(Arc::ptr_eq(&first, &gateway.fresh_index().await));
    assert_eq!(listed(&gateway).len(), 2_000);
    gateway.backends[0]
        .catalog
        .told(About::default(), tools(&names[1..]));
    // At once: what is there. Who waits: what is new.
    assert!(Arc::ptr_eq(&first, &gateway.latest_index().unwrap()));
    let all = futures_util::future::join_all((0..8).map(|_| gateway.fresh_index())).await;
    assert!(!Arc::ptr_eq(&first, &all[0]));
    assert!(all.iter().all(|one| Arc::ptr_eq(one, &all[0])));
    assert_eq!(listed(&gateway).len(), 1_999);
}

#[test]
fn bare_names_that_clash_get_prefixes_and_the_others_none() {
    let lists = vec![("a", tools(&["echo", "one"])), ("b", tools(&["echo"]))];
    let gateway = gateway(Naming::Bare, lists, None);
    assert_eq!(listed(&gateway), ["a__echo", "one", "b__echo"]);
    assert_eq!(owner_of(&gateway, "b__echo"), Some((1, "echo".to_owned())));
    assert_eq!(owner_of(&gateway, "echo"), None);
}

/// By offering both `echo` and `b__echo`, a backend would get the calls for
/// the tool that another one had to rename.
#[test]
fn a_bare_name_cannot_pose_as_the_prefixed_one_of_another_backend() {
    let lists = vec![
        ("b", tools(&["echo"])),
        ("evil", tools(&["echo", "b__echo"])),
    ];
    let gateway = gateway(Naming::Bare, lists, None);
    assert_eq!(owner_of(&gateway, "b__echo"), Some((0, "echo".to_owned())));
    assert_eq!(
        owner_of(&gateway, "evil__b__echo"),
        Some((1, "b__echo".to_owned()))
    );
    assert_eq!(listed(&gateway), ["b__echo", "evil__echo", "evil__b__echo"]);
}

#[test]
fn a_backend_that_is_alone_keeps_its_bare_names_whatever_they_are() {
    let gateway = gateway(Naming::Bare, vec![("a", tools(&["a__echo"]))], None);
    assert_eq!(listed(&gateway), ["a__echo"]);
}

#[test]
fn the_template_with_the_longest_literal_prefix_owns_a_uri() {
    let lists = vec![
        ("a", templates(&["db://{any}"])),
        ("b", templates(&["db://t/{x}"])),
    ];
    let gateway = gateway(prefixed(), lists, None);
    let index = gateway.index();
    assert_eq!(index.owner("db://t/1"), Some(Owner::One(1)));
    assert_eq!(index.owner("db://u/1"), Some(Owner::One(0)));
    assert_eq!(index.owner("xx://u/1"), None);
}

#[test]
fn templates_with_the_same_prefix_are_nobodys_unless_an_owner_is_named() {
    let lists = || {
        vec![
            ("a", templates(&["db://{x}"])),
            ("b", templates(&["db://{y}"])),
        ]
    };
    // The order of a hash map must not decide: try often.
    for _ in 0..20 {
        let index = gateway(prefixed(), lists(), None).index();
        assert_eq!(index.owner("db://1"), Some(Owner::Clash));
        assert_eq!(index.owner("db://{x}"), Some(Owner::One(0)));
        assert_eq!(index.owner("db://{y}"), Some(Owner::One(1)));
        let index = gateway(prefixed(), lists(), Some(1)).index();
        assert_eq!(index.owner("db://1"), Some(Owner::One(1)));
    }
}

#[test]
fn a_uri_that_two_backends_list_is_neithers_unless_an_owner_is_named() {
    let resources = |uris: &[&str]| Lists {
        resources: list("uri", uris),
        ..Lists::default()
    };
    let lists = || {
        vec![
            ("a", resources(&["x://1"])),
            ("b", resources(&["x://1"])),
            ("c", resources(&["x://1", "x://2"])),
        ]
    };
    let index = gateway(prefixed(), lists(), None).index();
    assert_eq!(index.owner("x://1"), Some(Owner::Clash));
    assert_eq!(index.owner("x://2"), Some(Owner::One(2)));
    for chosen in 0..3 {
        let index = gateway(prefixed(), lists(), Some(chosen)).index();
        assert_eq!(index.owner("x://1"), Some(Owner::One(chosen)));
    }
}

#[test]
fn only_a_change_makes_the_index_anew() {
    let gateway = gateway(prefixed(), vec![("a", tools(&["echo"]))], None);
    let first = gateway.index();
    let catalog = &gateway.backends[0].catalog;
    catalog.told(About::default(), tools(&["echo"]));
    assert!(Arc::ptr_eq(&first, &gateway.index()));
    catalog.failed("gone".to_owned());
    let stale = gateway.index();
    assert!(!Arc::ptr_eq(&first, &stale));
    catalog.failed("gone".to_owned());
    assert!(Arc::ptr_eq(&stale, &gateway.index()));
    catalog.told(About::default(), tools(&["echo", "new"]));
    assert_eq!(listed(&gateway), ["a__echo", "a__new"]);
}

#[test]
fn the_hints_of_a_list_are_the_least_of_all_parts() {
    let hinted = |ttl| Lists {
        ttl: Some(Duration::from_secs(ttl)),
        public: true,
        ..Lists::default()
    };
    let index = gateway(prefixed(), vec![("a", hinted(5)), ("b", hinted(2))], None).index();
    assert_eq!((index.ttl, index.public), (Duration::from_secs(2), true));
    let lists = vec![("a", hinted(5)), ("b", Lists::default())];
    let index = gateway(prefixed(), lists, None).index();
    assert_eq!((index.ttl, index.public), (Duration::ZERO, false));
}
