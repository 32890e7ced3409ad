//! Scan and splice.

use criterion::Criterion;
use mcp_dataplane::envelope::{Edit, scan, splice};

use crate::measure::alone;

/// A small call of the legacy era.
pub(crate) const LEGACY: &str = r#"{"jsonrpc":"2.0","id":1000000000000007,"method":"tools/call","params":{"name":"server__echo","arguments":{"text":"the quick brown fox jumps over it"}}}"#;
/// The same in the modern era.
pub(crate) const MODERN: &str = r#"{"jsonrpc":"2.0","id":1000000000000007,"method":"tools/call","params":{"name":"server__echo","arguments":{"text":"the quick brown fox jumps over it"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"fleet-bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;
/// A small answer.
pub(crate) const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1000000000000007,"result":{"resultType":"complete","content":[{"type":"text","text":"the quick brown fox jumps over it"}]}}"#;

pub(crate) fn all(criterion: &mut Criterion) {
    let large = ANSWER.replace("fox", &"x".repeat(64 << 10));
    // What is not plain text is read more slowly.
    let escaped = ANSWER.replace("fox", &r#"{\"a\":\"b\"}\n"#.repeat(5 << 10));
    for (name, text) in [
        ("scan/call, 2025-11-25", LEGACY),
        ("scan/call, 2026-07-28", MODERN),
        ("scan/answer, small", ANSWER),
        ("scan/answer, 64 KiB of text", &large),
        ("scan/answer, 64 KiB of escapes", &escaped),
    ] {
        alone(criterion, name, || scan(text.as_bytes()).unwrap());
    }
    let name = scan(MODERN.as_bytes()).unwrap().name.unwrap();
    alone(criterion, "splice/name of a small call", || {
        splice(MODERN.as_bytes(), &mut [Edit::replace(name, b"\"echo\"")]).unwrap()
    });
    let id = scan(large.as_bytes()).unwrap().id.unwrap();
    alone(criterion, "splice/id of a 64 KiB answer", || {
        splice(large.as_bytes(), &mut [Edit::replace(id, b"7")]).unwrap()
    });
}
