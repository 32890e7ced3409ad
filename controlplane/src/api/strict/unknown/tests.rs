//! Encodings by hand: what protobuf allows, and what this version does not know.

use fleet_proto::v1::{ApplyRequest, Backend, HttpBackend, Resource, backend, resource};
use prost::{Message, encoding};

use super::{super::INPUTS, *};

fn apply() -> &'static MessageDescriptor {
    &INPUTS["/fleet.v1.ConfigService/Apply"]
}

/// A field that holds bytes, a text or a message.
fn field(number: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoding::bytes::encode(number, &body.to_vec(), &mut bytes);
    bytes
}

fn backend(name: &str) -> Backend {
    let http = HttpBackend {
        url: "http://127.0.0.1:3001/mcp".to_owned(),
        headers: [("x-team".to_owned(), "core".to_owned())].into(),
        ..Default::default()
    };
    Backend {
        name: name.to_owned(),
        labels: [("team".to_owned(), "core".to_owned())].into(),
        transport: Some(backend::Transport::Http(http)),
        timeout: Some(fleet_proto::duration::Duration::from_millis(500)),
        ..Default::default()
    }
}

fn request(backends: usize) -> ApplyRequest {
    let resource = |n| Resource {
        kind: Some(resource::Kind::Backend(backend(&format!("b{n}")))),
    };
    ApplyRequest {
        resources: (0..backends).map(resource).collect(),
        message: "why".to_owned(),
        expect_revision: Some(7),
        ..Default::default()
    }
}

fn told(bytes: &[u8]) -> String {
    find(apply(), bytes).map_or_else(String::new, |unknown| unknown.to_string())
}

const ASK: &str = "this control plane does not know it: upgrade it";

#[test]
fn unknown_fields_are_found_at_any_depth_and_named_with_their_place() {
    let known = request(2).encode_to_vec();
    assert_eq!(told(&known), "");
    let top = [&known[..], &[0xf8, 0x06, 1]].concat();
    assert_eq!(
        told(&top),
        format!("field 111 of fleet.v1.ApplyRequest: {ASK}")
    );

    let with = |extra: Vec<u8>| {
        let backend = [backend("new").encode_to_vec(), extra].concat();
        [known.clone(), field(1, &field(1, &backend))].concat()
    };
    assert_eq!(
        told(&with(field(99, b"x"))),
        format!("resources[2].backend: field 99 of fleet.v1.Backend: {ASK}")
    );
    assert_eq!(
        told(&with(field(5, &field(77, b"x")))),
        format!("resources[2].backend.http: field 77 of fleet.v1.HttpBackend: {ASK}")
    );
    // In an entry of a map, and in a type of ours.
    assert_eq!(
        told(&with(field(3, &field(3, b"x")))),
        format!("resources[2].backend.labels: field 3 of fleet.v1.Backend.LabelsEntry: {ASK}")
    );
    assert_eq!(
        told(&with(field(6, &[0x10, 1]))),
        format!("resources[2].backend.timeout: field 2 of fleet.v1.Duration: {ASK}")
    );
    // A kind of the future.
    let kind = [known.clone(), field(1, &field(9, b""))].concat();
    assert_eq!(
        told(&kind),
        format!("resources[2]: field 9 of fleet.v1.Resource: {ASK}")
    );
}

#[test]
fn what_protobuf_allows_is_let_through() {
    let http = field(1, b"http://127.0.0.1:1/mcp");
    let backend = [
        // Not in the order of the numbers; an empty text written out.
        field(5, &http),
        field(2, b""),
        // A message in two parts, which are merged.
        field(5, &field(3, b"token")),
        // An entry without its value, a scalar given twice.
        field(3, &field(1, b"team")),
        field(1, b"a"),
        field(1, b"b"),
    ]
    .concat();
    let bytes = [
        field(3, b"why"),
        field(1, &field(1, &backend)),
        // `false` written out, and 7 in more bytes than it needs.
        vec![0x10, 0],
        vec![0x20, 0x87, 0x80, 0x00],
    ]
    .concat();
    assert_eq!(told(&bytes), "");
    let decoded = ApplyRequest::decode(bytes.as_slice()).unwrap();
    assert_eq!(decoded.expect_revision, Some(7));
    assert_ne!(decoded.encode_to_vec(), bytes);
}

#[test]
fn bytes_that_are_no_message_are_left_to_the_decoder() {
    let whole = request(3).encode_to_vec();
    for end in 1..whole.len() {
        assert_eq!(told(&whole[..end]), "", "cut at {end}");
    }
    assert_eq!(told(&[0x0c]), "", "the end of a group that has not begun");
    assert_eq!(told(&[0x09; 8]), "", "a fixed64 where a message belongs");
}

#[test]
fn a_request_that_is_small_on_the_wire_and_large_in_memory_is_refused() {
    let empty = field(1, b"");
    assert_eq!(find(apply(), &empty.repeat(MOST)), None);
    assert_eq!(
        find(apply(), &empty.repeat(MOST + 1)),
        Some(Refused::TooMany)
    );
    // What is nested counts, too.
    let names = field(2, &field(5, b"").repeat(MOST));
    let nested = field(1, &names);
    assert_eq!(find(apply(), &nested), Some(Refused::TooMany));
}
