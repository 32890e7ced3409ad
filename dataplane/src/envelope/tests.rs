//! Facts; the laws are in [`laws`].

use super::*;

mod edits;
mod laws;
mod model;

/// The source text of a span.
fn at(src: &str, span: Option<Span>) -> Option<&str> {
    span.map(|s| std::str::from_utf8(s.of(src.as_bytes())).unwrap())
}

fn refused(src: &str) -> ScanError {
    scan(src.as_bytes()).expect_err(src)
}

#[test]
fn a_tool_call_is_found_in_place() {
    let src = r#" {"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a\u0062","arguments":{"x":1.10},
        "_meta":{"progressToken":"t","io.modelcontextprotocol/protocolVersion":"2026-07-28"},"requestState":"s"}} "#;
    let m = scan(src.as_bytes()).unwrap();
    assert_eq!(m.kind, Kind::Request);
    assert_eq!(at(src, m.id), Some("7"));
    assert_eq!(at(src, m.method), Some("tools/call"));
    assert_eq!(at(src, m.name), Some(r#""a\u0062""#));
    assert_eq!(at(src, m.arguments), Some(r#"{"x":1.10}"#));
    assert_eq!(at(src, m.progress_token), Some(r#""t""#));
    assert_eq!(at(src, m.protocol_version), Some(r#""2026-07-28""#));
    assert_eq!(at(src, m.request_state), Some(r#""s""#));
    assert_eq!((m.uri, m.result, m.error), (None, None, None));
}

#[test]
fn the_kind_follows_from_the_members() {
    let kind =
        |rest: &str| scan(format!(r#"{{"jsonrpc":"2.0",{rest}}}"#).as_bytes()).map(|m| m.kind);
    assert_eq!(kind(r#""method":"m","id":"1""#), Ok(Kind::Request));
    assert_eq!(kind(r#""method":"m""#), Ok(Kind::Notification));
    assert_eq!(kind(r#""id":1,"result":{}"#), Ok(Kind::Response));
    assert_eq!(
        kind(r#""id":1,"error":{"code":-32603,"message":""}"#),
        Ok(Kind::Error)
    );
    assert_eq!(kind(r#""id":null,"error":{}"#), Ok(Kind::Error));
    assert_eq!(kind(r#""error":{}"#), Ok(Kind::Error));
    for both in [
        r#""id":1"#,
        r#""id":1,"method":"m","result":{}"#,
        r#""id":1,"method":"m","error":{}"#,
        r#""id":1,"result":{},"error":null"#,
        r#""id":1,"result":{},"params":{}"#,
    ] {
        let error = kind(both).unwrap_err();
        assert!(
            matches!(error, ScanError::Ambiguous { .. }),
            "{both}: {error:?}"
        );
        assert!(error.id().is_some());
    }
}

#[test]
fn ids_are_strings_or_integers() {
    let id = |id: &str| scan(format!(r#"{{"jsonrpc":"2.0","method":"m","id":{id}}}"#).as_bytes());
    for good in [
        "0",
        "-1",
        "123456789012345678901234567890",
        r#""""#,
        r#""\u00e9\"""#,
    ] {
        assert!(id(good).is_ok(), "{good}");
    }
    for bad in [
        "null",
        "1.0",
        "1e3",
        "true",
        "{}",
        "[1]",
        r#""\ud800""#,
        r#""a\u0000""#,
    ] {
        let error = id(bad).unwrap_err();
        assert!(matches!(error, ScanError::BadId { .. }), "{bad}: {error:?}");
        assert_eq!((error.id(), error.code()), (None, -32600));
    }
    assert!(matches!(
        refused(r#"{"jsonrpc":"2.0","result":{}}"#),
        ScanError::BadId { .. }
    ));
}

#[test]
fn a_key_may_come_once_however_it_is_written() {
    for (src, path) in [
        (
            r#"{"id":1,"jsonrpc":"2.0","method":"a","m\u0065thod":"b"}"#,
            "the message",
        ),
        (
            r#"{"id":1,"jsonrpc":"2.0","method":"a","x":1,"x":2}"#,
            "the message",
        ),
        (
            r#"{"id":1,"jsonrpc":"2.0","method":"a","params":{"\u006eame":"a","name":"b"}}"#,
            "params",
        ),
        (
            r#"{"id":1,"jsonrpc":"2.0","method":"a","params":{"uri":null,"uri":"b"}}"#,
            "params",
        ),
        (
            r#"{"id":1,"jsonrpc":"2.0","method":"a","params":{"\u00e9":1,"é":2}}"#,
            "params",
        ),
        (
            r#"{"id":1,"jsonrpc":"2.0","method":"a","params":{"_meta":{"k":1,"k":1}}}"#,
            "params._meta",
        ),
        (
            r#"{"id":1,"jsonrpc":"2.0","method":"a","params":{"ref":{"uri":"a","uri":"a"}}}"#,
            "params.ref",
        ),
        (
            r#"{"id":1,"jsonrpc":"2.0","result":{"a":1,"a":1}}"#,
            "result",
        ),
        (
            r#"{"id":1,"jsonrpc":"2.0","result":{"_meta":{"a":1,"a":1}}}"#,
            "result._meta",
        ),
        (
            r#"{"id":1,"jsonrpc":"2.0","error":{"code":1,"code":1}}"#,
            "error",
        ),
    ] {
        let error = refused(src);
        assert!(
            matches!(&error, ScanError::DuplicateKey { path: p, .. } if *p == path),
            "{src}: {error:?}"
        );
        assert_eq!(
            at(src, error.id()),
            Some("1"),
            "the error answers the request"
        );
        assert_eq!(error.code(), -32600);
    }
    let deeper = r#"{"id":1,"jsonrpc":"2.0","method":"a","params":{"arguments":{"a":1,"a":2}}}"#;
    assert!(
        scan(deeper.as_bytes()).is_ok(),
        "arguments are the backend's"
    );
}

#[test]
fn repeated_keys_are_found_among_many() {
    for count in [15, 16, 17, 40] {
        let keys: Vec<_> = (0..count).map(|i| format!(r#""k{i}":0"#)).collect();
        let with = |more: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"result":{{{}{more}}}}}"#,
                keys.join(",")
            )
        };
        assert!(scan(with("").as_bytes()).is_ok());
        assert!(scan(with(r#","\u006b":0"#).as_bytes()).is_ok());
        for again in [r#","k3":0"#, r#","\u006b3":0"#, r#","k14":0"#] {
            assert!(matches!(
                refused(&with(again)),
                ScanError::DuplicateKey { .. }
            ));
        }
    }
}

#[test]
fn a_key_that_some_parsers_take_for_ours_is_refused() {
    for (level, key) in [
        ("params", "Name"),
        ("params", "URI"),
        ("params", r"na\u004de"),
        ("params", "progreſsToken"),
        ("params", r"progressTo\u212aen"),
        ("params", r"name\u0000"),
        ("params", r"x\ud800"),
        ("_meta", "progresstoken"),
    ] {
        let member = format!(r#""{key}":"x""#);
        let member = match level {
            "_meta" => format!(r#""_meta":{{{member}}}"#),
            _ => member,
        };
        let src = format!(r#"{{"jsonrpc":"2.0","method":"a","params":{{{member}}},"id":1}}"#);
        let error = refused(&src);
        assert!(
            matches!(error, ScanError::UnclearKey { .. }),
            "{src}: {error:?}"
        );
    }
    let own = r#"{"jsonrpc":"2.0","method":"a","params":{"Key":1,"key":2,"names":3}}"#;
    assert!(
        scan(own.as_bytes()).is_ok(),
        "keys of others may differ by case only"
    );
}

#[test]
fn routed_members_have_the_right_type() {
    for (params, code) in [
        (r#"{"name":5}"#, -32602),
        (r#"{"name":{"a":1}}"#, -32602),
        (r#"{"name":"a\u0000b"}"#, -32602),
        (r#"{"name":"a\udc00b"}"#, -32602),
        (r#"{"uri":["x"]}"#, -32602),
        (r#"{"_meta":[]}"#, -32602),
        (r#"{"_meta":{"progressToken":1.5}}"#, -32602),
        (r#"{"_meta":{"progressToken":true}}"#, -32602),
        (r#"{"ref":{"name":1}}"#, -32602),
        ("[1]", -32600),
        (r#""x""#, -32600),
    ] {
        let src = format!(r#"{{"jsonrpc":"2.0","method":"a","params":{params},"id":"i"}}"#);
        let error = refused(&src);
        assert!(
            matches!(error, ScanError::BadMember { .. }),
            "{src}: {error:?}"
        );
        assert_eq!((error.code(), at(&src, error.id())), (code, Some(r#""i""#)));
    }
    let method = refused(r#"{"jsonrpc":"2.0","method":"tools\/call","id":1}"#);
    assert_eq!(
        method.to_string(),
        "bad the message.method (byte 26): a method is written without escapes"
    );
    let null = br#"{"jsonrpc":"2.0","method":"a","params":{"name":null,"_meta":null},"id":1}"#;
    let found = scan(null).unwrap();
    assert_eq!((found.name, found.meta.is_some()), (None, true));
    assert!(scan(br#"{"jsonrpc":"2.0","method":"a","params":null}"#).is_ok());
}

#[test]
fn the_version_must_be_2_0() {
    for version in [
        "",
        r#""jsonrpc":2.0,"#,
        r#""jsonrpc":"1.0","#,
        r#""jsonrpc":"2.\u0030","#,
    ] {
        let src = format!(r#"{{{version}"method":"a","id":1}}"#);
        assert_eq!(
            refused(&src),
            ScanError::BadVersion {
                id: refused(&src).id()
            }
        );
        assert_eq!(at(&src, refused(&src).id()), Some("1"));
    }
}

#[test]
fn what_is_not_one_object_is_refused() {
    assert_eq!(refused("[]"), ScanError::Batch);
    assert_eq!(refused(" 5 "), ScanError::NotObject);
    for broken in [
        "",
        " ",
        "nul",
        "{",
        r#"{"a"}"#,
        r#"{"a":1,}"#,
        r#"{"a":01}"#,
        "{} x",
        "\u{feff}{}",
        "{'a':1}",
    ] {
        let error = refused(broken);
        assert!(
            matches!(error, ScanError::NotJson { .. }),
            "{broken}: {error:?}"
        );
        assert_eq!((error.code(), error.id()), (-32700, None));
    }
    assert_eq!(
        scan(b"{\"a\":\"\xc0\xaf\"}"),
        Err(ScanError::NotUtf8 { at: 6 })
    );
    assert_eq!(
        refused(r#"{"jsonrpc":"2.0" "id":1}"#).to_string(),
        "not JSON at byte 17: expected ',' or '}'"
    );
}

#[test]
fn nesting_is_bounded_and_costs_no_stack() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"jsonrpc":"2.0","method":"a","params":{{"arguments":{open}{close}}}}}"#)
    };
    assert!(scan(nested(MAX_DEPTH - 2).as_bytes()).is_ok());
    assert!(matches!(
        refused(&nested(MAX_DEPTH - 1)),
        ScanError::TooDeep { .. }
    ));
    assert!(matches!(
        refused(&nested(1_000_000)),
        ScanError::TooDeep { .. }
    ));
    assert!(matches!(
        refused(&"{\"a\":".repeat(1_000_000)),
        ScanError::TooDeep { .. }
    ));
}

#[test]
fn a_batch_is_taken_apart() {
    let src = r#" [ {"jsonrpc":"2.0","method":"a","id":1} , {"jsonrpc":"2.0","method":"b"} ] "#;
    let spans = scan_batch(src.as_bytes()).unwrap();
    let kinds: Vec<_> = spans
        .iter()
        .map(|s| scan(s.of(src.as_bytes())).unwrap().kind)
        .collect();
    assert_eq!(kinds, [Kind::Request, Kind::Notification]);
    assert_eq!(scan_batch(b"[ ]"), Err(ScanError::EmptyBatch));
    assert_eq!(scan_batch(b"{}"), Err(ScanError::NotArray));
    assert!(matches!(scan_batch(b"[{}"), Err(ScanError::NotJson { .. })));
    assert!(matches!(
        scan_batch(b"[{}] 1"),
        Err(ScanError::NotJson { at: 5, .. })
    ));
}
