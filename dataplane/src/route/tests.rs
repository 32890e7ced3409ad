use std::time::Duration;

use fleet_proto::{
    hash::Hash,
    key::{Key, Kind},
};

use super::*;
use crate::{
    auth::Auth,
    backend::Parts,
    call::{ProtocolVersion, WorkerId},
    catalog::{About, Catalog, Lists, list::List},
    telemetry::Metrics,
    upstream::Upstream,
};

fn backend(name: &str, uris: &[&str]) -> Arc<Backend> {
    let key = Arc::new(Key::new("default", Kind::Backend, name));
    let catalog = Catalog::new(Arc::default(), None);
    let resources = uris
        .iter()
        .map(|uri| format!(r#"{{"name":"r","uri":"{uri}"}}"#));
    catalog.told(
        About::default(),
        Lists {
            resources: List::of("uri", resources),
            ..Lists::default()
        },
    );
    Arc::new(Backend::new(Parts {
        serial: 1,
        fingerprint: Hash::of(b""),
        runtime: Hash::of(b""),
        timeout: Duration::from_secs(1),
        max_duration: Duration::from_secs(1),
        upstream: Upstream::broken(name.to_owned(), String::new()),
        catalog,
        metrics: Metrics::new(1).backend(&key),
        key,
    }))
}

fn gateway(separator: &str, backends: &[(&str, &[&str])]) -> Arc<Gateway> {
    let backends: Vec<_> = backends
        .iter()
        .map(|(name, uris)| backend(name, uris))
        .collect();
    Arc::new(Gateway {
        id: "default/g".to_owned(),
        path: "/mcp".to_owned(),
        serials: Gateway::serials_of(&backends),
        backends,
        naming: Naming::Prefixed {
            separator: separator.to_owned(),
        },
        auth: Arc::new(Auth::Open),
        hosts: Vec::new(),
        origins: Vec::new(),
        resource_owner: None,
        method_owners: Vec::new(),
        resume_grace: Duration::ZERO,
        epoch: Arc::default(),
        scope: crate::sealed::scope::Scope::of_tests(),
        index: Default::default(),
        versions: Default::default(),
    })
}

fn call(version: ProtocolVersion, method: &str, params: &str) -> Call {
    let body = Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#
    ));
    Call {
        worker: WorkerId(0),
        version,
        method: Method::parse(method.as_bytes()),
        message: envelope::scan(&body).unwrap(),
        body,
        target: None,
        param_headers: Vec::new(),
        principal: Auth::anonymous(),
        session: None,
        rounds: Default::default(),
    }
}

const V: ProtocolVersion = ProtocolVersion::V2025_11_25;
const TWO: &[(&str, &[&str])] = &[
    ("files", &["file:///a", "x://both"]),
    ("web", &["x://both"]),
];

/// Backend and literal of a tool call, or the code of the refusal.
fn tool(gateway: &Arc<Gateway>, name: &str) -> Result<(String, String), i64> {
    let route = route(
        gateway,
        &call(V, "tools/call", &format!(r#"{{"name":{name}}}"#)),
    );
    route
        .map(|r| {
            let literal = r
                .target
                .map_or_else(String::new, |t| String::from_utf8(t.to_vec()).unwrap());
            (r.backend.name().to_owned(), literal)
        })
        .map_err(|e| e.code())
}

#[test]
fn a_prefix_names_the_backend_and_the_rest_is_its_own_name() {
    let gateway = gateway("__", TWO);
    let found = |b: &str, l: &str| Ok((b.to_owned(), l.to_owned()));
    assert_eq!(
        tool(&gateway, r#""files__read""#),
        found("files", r#""read""#)
    );
    assert_eq!(tool(&gateway, r#""web__a__b""#), found("web", r#""a__b""#));
    // Escapes mean what they stand for.
    assert_eq!(
        tool(&gateway, r#""fil\u0065s__r\"d""#),
        found("files", r#""r\"d""#)
    );
    for unknown in [
        r#""read""#,
        r#""other__read""#,
        r#""__read""#,
        r#""FILES__read""#,
    ] {
        assert_eq!(tool(&gateway, unknown), Err(INVALID_PARAMS), "{unknown}");
    }
}

#[test]
fn another_separator_works_the_same() {
    let gateway = gateway("/", TWO);
    assert_eq!(tool(&gateway, r#""files/a/b""#).unwrap().1, r#""a/b""#);
}

#[test]
fn a_uri_goes_to_its_owner_and_a_clash_to_nobody() {
    let gateway = gateway("__", TWO);
    let read = |version, uri: &str| {
        let params = format!(r#"{{"uri":"{uri}"}}"#);
        route(&gateway, &call(version, "resources/read", &params))
            .map(|r| r.backend.name().to_owned())
            .map_err(|e| e.code())
    };
    assert_eq!(read(V, "file:///a").unwrap(), "files");
    assert_eq!(read(V, "x://both"), Err(RESOURCE_NOT_FOUND));
    assert_eq!(read(V, "file:///none"), Err(RESOURCE_NOT_FOUND));
    assert_eq!(
        read(ProtocolVersion::V2026_07_28, "file:///none"),
        Err(INVALID_PARAMS)
    );
}

#[test]
fn a_completion_follows_its_reference_and_two_references_lead_nowhere() {
    let gateway = gateway("__", TWO);
    let complete = |reference: &str| {
        let params = format!(r#"{{"ref":{reference},"argument":{{"name":"a","value":""}}}}"#);
        route(&gateway, &call(V, "completion/complete", &params))
            .map(|r| r.backend.name().to_owned())
    };
    assert_eq!(
        complete(r#"{"type":"ref/prompt","name":"web__p"}"#).unwrap(),
        "web"
    );
    assert_eq!(
        complete(r#"{"type":"ref/resource","uri":"file:///a"}"#).unwrap(),
        "files"
    );
    assert!(complete(r#"{"type":"ref/resource","name":"web__p","uri":"file:///a"}"#).is_err());
}

#[test]
fn a_method_of_nobody_goes_to_the_only_backend_or_is_not_found() {
    let custom = call(V, "acme/do", "{}");
    assert_eq!(
        route(&gateway("__", TWO), &custom).err().unwrap().code(),
        METHOD_NOT_FOUND
    );
    let one = gateway("__", &TWO[..1]);
    assert_eq!(route(&one, &custom).unwrap().backend.name(), "files");
}
