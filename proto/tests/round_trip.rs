//! Whatever form a resource takes, it stays the same: YAML, JSON, protobuf.

use std::collections::BTreeMap;

use fleet_proto::{
    duration::Duration,
    key::Key,
    read::{Documents, read_yaml},
    v1::{
        AuthPolicy, Backend, BearerAuth, Gateway, HttpBackend, Resource, SseBackend, StdioBackend,
        UnixBackend, WebSocketBackend, auth_policy::Scheme, backend::Transport, resource::Kind,
    },
    validate::{normalize, validate, validate_encoded},
    write::{to_json, write_yaml},
};
use proptest::{collection, option, prelude::*};

/// Names that mean something else to many YAML readers are names all the same.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-zA-Z0-9]([a-zA-Z0-9.-]{0,20}[a-zA-Z0-9])?",
        1 => prop_oneof![Just("null"), Just("true"), Just("no"), Just("1.10"), Just("0x1f"), Just("1e5"), Just("2026-01-01")]
            .prop_map(str::to_owned),
    ]
}

/// Any text without NUL; its dollars are dollars.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~\t\r\n\u{80}-\u{a0}\u{2028}\u{feff}\u{1F600}]{0,12}",
        "[-:#?&*!|>%@`'\"{}\\[\\], ~.0-9a-z]{0,6}",
    ]
    .prop_map(|text| text.replace('\0', "").replace('$', "$$"))
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    collection::btree_map("[a-zA-Z0-9_./-]{1,63}", "[a-zA-Z0-9_./-]{0,63}", 0..4)
}

fn http() -> impl Strategy<Value = Transport> {
    let header = "[a-zA-Z]{1,3}-[a-z0-9]{1,10}".prop_filter("not of the protocol", |n| {
        !n.to_lowercase().starts_with("mcp-")
    });
    // One case only: names of headers ignore it.
    let headers = collection::btree_map(
        header.prop_map(|n| n.to_lowercase()),
        "[ -#%-~]{0,20}",
        0..4,
    );
    (
        "https?://[a-z]{1,9}(:[1-9][0-9]{0,3})?(/[a-z0-9?=.-]{0,9})?",
        headers,
        "([a-zA-Z0-9~+/=-]{1,20})?|\\$\\{env:T\\}",
    )
        .prop_map(|(url, headers, bearer_token)| {
            Transport::Http(HttpBackend {
                url,
                headers,
                bearer_token,
            })
        })
}

/// The same headers and token over what else HTTP goes over.
fn over() -> impl Strategy<Value = Transport> {
    (http(), "/[a-z0-9./]{0,20}", 0..3_u8).prop_map(|(http, path, way)| {
        let Transport::Http(HttpBackend {
            url,
            headers,
            bearer_token,
        }) = http
        else {
            unreachable!("it is made so");
        };
        if way == 0 {
            return Transport::Sse(SseBackend {
                url,
                headers,
                bearer_token,
            });
        }
        if way == 1 {
            return Transport::Unix(UnixBackend {
                url_path: path.clone(),
                path,
                headers,
                bearer_token,
            });
        }
        Transport::Websocket(WebSocketBackend {
            url: url.replacen("http", "ws", 1),
            headers,
            bearer_token,
        })
    })
}

fn stdio() -> impl Strategy<Value = Transport> {
    let command = text().prop_filter("not empty", |text| !text.is_empty());
    let variable = text().prop_map(|text| format!("V{}", text.replace('=', "")));
    (
        command,
        collection::vec(text(), 0..4),
        collection::btree_map(variable, text(), 0..4),
        text(),
    )
        .prop_map(|(command, args, env, cwd)| {
            Transport::Stdio(StdioBackend {
                command,
                args,
                env,
                cwd,
            })
        })
}

fn backend() -> impl Strategy<Value = Kind> {
    let times = option::of((1_u64..1_000_000, 0_u64..1_000_000)).prop_map(|times| match times {
        Some((timeout, more)) => (
            Some(Duration::from_millis(timeout)),
            Some(Duration::from_millis(timeout + more)),
        ),
        None => (None, None),
    });
    (
        name(),
        name(),
        labels(),
        prop_oneof![http(), over(), stdio()],
        times,
    )
        .prop_map(
            |(name, project, labels, transport, (timeout, max_duration))| {
                Kind::Backend(Backend {
                    name,
                    project,
                    labels,
                    transport: Some(transport),
                    timeout,
                    max_duration,
                })
            },
        )
}

fn gateway() -> impl Strategy<Value = Kind> {
    let naming = prop_oneof![
        Just((String::new(), true)),
        "[a-zA-Z0-9_./-]{0,4}".prop_map(|s| (s, false))
    ];
    let hosts = collection::vec("[a-z0-9]{1,9}(\\.[a-z0-9]{1,9}){0,2}", 0..3);
    let origins = collection::vec("https?://[a-z0-9]{1,9}(:[1-9][0-9]{0,3})?", 0..3);
    let backends = collection::btree_set("[a-z.]{0,5}\\*[a-z?]{0,5}", 0..4);
    (
        name(),
        name(),
        labels(),
        "/x[a-zA-Z0-9_~-]{0,9}",
        backends,
        labels(),
        naming,
        any::<bool>(),
        hosts,
        origins,
    )
        .prop_map(
            |(
                name,
                project,
                labels,
                path,
                backends,
                backend_labels,
                naming,
                none,
                hosts,
                origins,
            )| {
                let (separator, bare_names) = naming;
                let auth = if none {
                    "none".to_owned()
                } else {
                    String::new()
                };
                let backends = backends.into_iter().collect();
                Kind::Gateway(Gateway {
                    name,
                    project,
                    labels,
                    path,
                    backends,
                    backend_labels,
                    separator,
                    bare_names,
                    auth,
                    hosts,
                    origins,
                    resource_owner: String::new(),
                    resume_grace: None,
                    method_owner: Default::default(),
                })
            },
        )
}

fn auth_policy() -> impl Strategy<Value = Kind> {
    let token = prop_oneof![
        "[!-#%-~]{8,40}",
        "[a-z]{0,4}\\$\\{env:[A-Z_]{1,9}\\}",
        "\\$\\{file:/[a-z ]{1,9}\\}",
        "sha256:[0-9a-f]{64}"
    ]
    .prop_filter("a hash is whole", |token| {
        !token.starts_with("sha256:") || token.len() == 71
    });
    let name = name().prop_filter("reserved", |name| name != "none");
    (
        name,
        name_or_default(),
        labels(),
        collection::vec(token, 1..4),
    )
        .prop_map(|(name, project, labels, tokens)| {
            Kind::AuthPolicy(AuthPolicy {
                name,
                project,
                labels,
                scheme: Some(Scheme::Bearer(BearerAuth { tokens })),
            })
        })
}

fn name_or_default() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), name()]
}

fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![backend(), gateway(), auth_policy()].prop_map(|kind| Resource { kind: Some(kind) })
}

fn read(text: &str) -> Result<Vec<Resource>, TestCaseError> {
    let mut documents = Documents::default();
    read_yaml("f", text, &mut documents);
    prop_assert!(
        documents.problems.is_empty(),
        "{text}\n{:#?}",
        documents.problems
    );
    Ok(documents.resources())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn yaml_to_proto_to_json_to_proto_is_the_identity(resources in collection::vec(resource(), 0..4)) {
        let from_yaml = read(&write_yaml(&resources))?;
        prop_assert_eq!(&from_yaml, &resources);
        for resource in &from_yaml {
            // The JSON of files.
            prop_assert_eq!(&read(&to_json(resource).to_string())?, std::slice::from_ref(resource));
            // The JSON of the API.
            let api: Resource = serde_json::from_str(&serde_json::to_string(resource).unwrap()).unwrap();
            prop_assert_eq!(&api, resource);
        }
    }

    #[test]
    fn what_is_valid_stays_valid_and_the_same_over_the_wire(resource in resource()) {
        let valid = validate([resource.clone()]);
        prop_assert!(valid.is_ok(), "{:?}", valid);
        let valid = valid.unwrap();
        let (key, entry) = valid.iter().next().unwrap();
        prop_assert_eq!(Some(key.clone()), Key::of(&resource));
        prop_assert_eq!(entry.resource(), &normalize(resource));
        prop_assert_eq!(&normalize(entry.resource().clone()), entry.resource());
        let received = validate_encoded([(key.clone(), entry.body().to_vec())]);
        let received = received.map_err(|problems| TestCaseError::fail(format!("{problems:?}")))?;
        prop_assert_eq!(received.root_hash(), valid.root_hash());
        prop_assert_eq!(received.get(key), Some(entry));
    }
}
