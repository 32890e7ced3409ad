//! Tests of validation: each rule by what it refuses and what it lets pass.

mod backend;
mod gateway;
mod secret;

use std::{collections::BTreeSet, time::Instant};

use super::*;
use crate::{
    key::Kind,
    read::{Documents, read_yaml},
    v1::{AuthPolicy, Backend, Gateway, auth_policy::Scheme, backend::Transport},
};

/// Reads a good text without checking it.
fn resources(text: &str) -> Vec<Resource> {
    let mut documents = Documents::default();
    read_yaml("f", text, &mut documents);
    assert!(
        documents.problems.is_empty(),
        "{text}\n{:?}",
        documents.problems
    );
    documents.resources()
}

fn wrong(text: &str) -> Vec<String> {
    validate(resources(text)).map_or_else(
        |all| all.iter().map(ToString::to_string).collect(),
        |_| Vec::new(),
    )
}

/// Exactly one problem, which holds these words; none where they are empty.
#[track_caller]
fn assert_one(text: &str, words: &str) {
    let wrong = wrong(text);
    let fits = match wrong.as_slice() {
        [] => words.is_empty(),
        [one] => !words.is_empty() && one.contains(words),
        _ => false,
    };
    assert!(fits, "{text}\ngave {wrong:#?}\ninstead of {words:?}");
}

fn backend(name: &str) -> Resource {
    let http = crate::v1::HttpBackend {
        url: "http://h/mcp".into(),
        ..Default::default()
    };
    let backend = Backend {
        name: name.into(),
        transport: Some(Transport::Http(http)),
        ..Default::default()
    };
    Resource {
        kind: Some(resource::Kind::Backend(backend)),
    }
}

#[test]
fn names_fit_into_prefixes() {
    let long = "n".repeat(64);
    let too_long = "n".repeat(65);
    for (name, words) in [
        ("files", ""),
        ("a", ""),
        ("4you", ""),
        ("a_b-c.d", ""),
        (long.as_str(), ""),
        (too_long.as_str(), "65 characters long: at most 64"),
        ("_a", "starts with \"_\""),
        ("a b", "holds ' '"),
        ("a/b", "holds '/'"),
        ("é", "holds 'é'"),
        ("a__b", "holds `__`"),
        ("a_", "ends with `_`"),
    ] {
        assert_one(
            &format!("kind: Backend\nname: {name}\nhttp: {{url: http://h/}}"),
            words,
        );
    }
    assert_one(
        "kind: Backend\nname: a\nproject: a b\nhttp: {url: http://h/}",
        "project: \"a b\" holds ' '",
    );
    assert_one("kind: Gateway\nname: a__b\npath: /mcp", "");
}

#[test]
fn labels_are_short_and_plain() {
    let long = "x".repeat(64);
    for (label, words) in [
        ("team: core", ""),
        ("example.com/a-b_c: ''", ""),
        ("'': a", "labels[\"\"]: the key of a label"),
        ("a b: c", "labels[\"a b\"]: the key of a label"),
        ("a: b c", "labels[\"a\"]: the value of a label"),
        (&format!("a: {long}"), "the value of a label"),
        (&format!("{long}: a"), "the key of a label"),
    ] {
        assert_one(
            &format!("kind: Backend\nname: a\nhttp: {{url: http://h/}}\nlabels: {{{label}}}"),
            words,
        );
    }
}

#[test]
fn messages_never_show_a_token() {
    let secret = "s3cr3t";
    for text in [
        format!("kind: Backend\nname: a\nhttp: {{url: http://h/, bearer_token: '{secret} ${{x'}}"),
        format!(
            "kind: Backend\nname: a\nhttp: {{url: http://h/, headers: {{a: \"{secret}\\n\"}}}}"
        ),
        format!("kind: AuthPolicy\nname: a\nbearer: {{tokens: ['{secret}']}}"),
        format!("kind: AuthPolicy\nname: a\nbearer: {{tokens: ['{secret} {secret}']}}"),
        format!("kind: AuthPolicy\nname: a\nbearer: {{tokens: ['sha256:{secret}']}}"),
    ] {
        let wrong = wrong(&text);
        assert!(
            !wrong.is_empty() && wrong.iter().all(|line| !line.contains(secret)),
            "{wrong:?}"
        );
    }
}

#[test]
fn tokens_are_strong_and_stored_as_hashes() {
    for (tokens, words) in [
        ("'${env:T}', 'long-enough-token', 'a${file:/b}'", ""),
        ("", "bearer.tokens: has no token"),
        ("''", "bearer.tokens[0]: is empty"),
        (
            "'long-enough-token', short",
            "bearer.tokens[1]: is shorter than 8 characters",
        ),
        ("'with a blank in it'", "holds blanks"),
        ("'sha256:abc'", "64 hex digits"),
        ("'${TOKEN}'", "write `${env:TOKEN}`"),
    ] {
        assert_one(
            &format!("kind: AuthPolicy\nname: p\nbearer: {{tokens: [{tokens}]}}"),
            words,
        );
    }
    assert_one(
        "kind: AuthPolicy\nname: none\nbearer: {tokens: ['${env:T}']}",
        "`none` is reserved",
    );
    assert_one("kind: AuthPolicy\nname: p", "has no scheme");

    let hex = "2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824";
    let text = format!(
        "kind: AuthPolicy\nname: p\nbearer: {{tokens: ['sha256:{hex}', 'pa$$word1', '${{env:T}}']}}"
    );
    let valid = validate(resources(&text)).unwrap();
    let (
        _,
        AuthPolicy {
            scheme: Some(Scheme::Bearer(bearer)),
            ..
        },
    ) = valid.auth_policies().next().unwrap()
    else {
        panic!()
    };
    let expected = [
        format!("sha256:{}", hex.to_lowercase()),
        // `$$` is a `$`: what clients send is `pa$word1`.
        format!("sha256:{}", crate::hash::Hash::of(b"pa$word1")),
        "${env:T}".to_owned(),
    ];
    assert_eq!(bearer.tokens, expected);
}

#[test]
fn a_set_holds_every_key_once_and_finds_it() {
    let twice = validate([backend("a"), backend("b"), backend("a")]).unwrap_err();
    let expected = Problem {
        key: Some(Key::new("", Kind::Backend, "a")),
        path: "name".into(),
        message: "Backend a is defined twice: remove one, or give it another name".into(),
    };
    assert_eq!(twice, std::slice::from_ref(&expected));
    assert_eq!(Problem::from_wire(&expected.to_wire()), expected);
    assert_one(
        "kind: Gateway\nname: a\npath: /m\n---\nkind: Gateway\nname: a\npath: /m",
        "is defined twice",
    );

    let valid = validate([backend("b"), backend("a")]).unwrap();
    let keys: Vec<_> = valid.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(keys, ["Backend a", "Backend b"]);
    let entry = valid.get(&Key::new("", Kind::Backend, "b")).unwrap();
    assert_eq!(entry.hash(), crate::hash::Hash::of(entry.body()));
    assert_eq!(valid, validate([backend("a"), backend("b")]).unwrap());
    assert_ne!(valid, Valid::empty());
    assert!(
        validate([Resource { kind: None }]).unwrap_err()[0]
            .message
            .contains("has no kind")
    );
}

#[test]
fn a_set_made_from_another_shares_what_stays_and_is_checked_whole() {
    let key = |name: &str| Key::new("", Kind::Backend, name);
    let same = |a: &Valid, b: &Valid, name: &str| {
        let of = |set: &Valid| std::ptr::from_ref(set.get(&key(name)).unwrap().resource());
        std::ptr::eq(of(a), of(b))
    };
    let old = validate([backend("a"), backend("b"), backend("c")]).unwrap();
    let mut changed = backend("b");
    if let Some(resource::Kind::Backend(b)) = &mut changed.kind {
        b.labels.insert("team".into(), "core".into());
    }
    let remove = [key("c"), key("nowhere")].into();
    let new = old.with([changed.clone(), backend("a")], &remove).unwrap();
    assert_eq!(new, validate([backend("a"), changed]).unwrap());
    assert!(same(&old, &new, "a") && !same(&old, &new, "b"));
    assert_eq!(old.len(), 3, "the old one stays as it was");

    let read_again = validate([backend("a"), backend("b"), backend("c")]).unwrap();
    assert!(!same(&old, &read_again, "a"));
    let shared = read_again.clone().sharing(&new);
    assert_eq!(shared, read_again);
    assert!(same(&new, &shared, "a") && same(&read_again, &shared, "b"));

    let gateway = Gateway {
        name: "g".into(),
        path: "/mcp".into(),
        backends: vec!["a".into()],
        ..Default::default()
    };
    let gateway = Resource {
        kind: Some(resource::Kind::Gateway(gateway)),
    };
    let with_gateway = new.with([gateway], &BTreeSet::new()).unwrap();
    let problems = with_gateway.with([], &[key("a")].into()).unwrap_err();
    assert!(problems[0].path.starts_with("backends"), "{problems:?}");
    let twice = new.with([backend("x"), backend("x")], &BTreeSet::new());
    assert!(twice.unwrap_err()[0].message.contains("defined twice"));
}

#[test]
fn received_bytes_must_be_those_this_version_writes() {
    let key = Key::new("", Kind::Backend, "a");
    let good = normalize(backend("a")).encode_to_vec();
    let valid = validate_encoded([(key.clone(), good.clone())]).unwrap();
    assert_eq!(valid.get(&key).unwrap().body(), good);

    let message = |key: &Key, bytes: Vec<u8>| {
        let problems = validate_encoded([(key.clone(), bytes)]).unwrap_err();
        assert_eq!(problems[0].key.as_ref(), Some(key));
        problems[0].message.clone()
    };
    // Field 100 of the resource: a kind of a later version.
    let unknown = [good.clone(), vec![0xa2, 0x06, 0x00]].concat();
    assert!(message(&key, unknown).contains("upgrade this data plane"));
    assert!(message(&key, vec![0xa2, 0x06, 0x00]).contains("upgrade this data plane"));
    assert!(message(&key, vec![0xff]).contains("are not a resource"));
    assert!(
        message(&Key::new("", Kind::Backend, "b"), good)
            .contains("under a key that is not its own")
    );
    assert!(message(&key, backend("a").encode_to_vec()).contains("not in the form"));
}

#[test]
fn ten_times_the_backends_take_about_ten_times_as_long() {
    let fastest = |count: usize| {
        let times = (0..3).map(|_| {
            let start = Instant::now();
            large_set(count);
            start.elapsed()
        });
        times.min().unwrap_or_default()
    };
    let (small, large) = (fastest(1_000), fastest(10_000));
    // Comparing in pairs would make it a hundred times.
    assert!(large < small * 50, "{small:?}, then {large:?}");
}

/// Checks a good set and one in which every name of a gateway dangles.
fn large_set(count: usize) {
    let mut all: Vec<_> = (0..count)
        .map(|number| backend(&format!("backend-{number}")))
        .collect();
    let names = (0..count)
        .map(|number| format!("backend-{number}"))
        .collect();
    let gateway = Gateway {
        name: "g".into(),
        path: "/mcp".into(),
        backends: names,
        separator: "/".into(),
        ..Default::default()
    };
    all.push(Resource {
        kind: Some(resource::Kind::Gateway(gateway)),
    });
    assert_eq!(validate(all.clone()).unwrap().len(), count + 1);
    all.drain(..count - 1);
    assert_eq!(validate(all).unwrap_err().len(), count - 1);
}
