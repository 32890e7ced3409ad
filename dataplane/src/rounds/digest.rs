//! What a request is, whatever order its keys come in: method and parameters, without
//! what differs from one round to the next.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::envelope::{self, Message, Span};

/// Parameters that belong to a round, and not to the request.
const OF_A_ROUND: [&str; 3] = ["_meta", "inputResponses", "requestState"];
/// Longer ones are compared as they are written: nested deeply, they would be passed over
/// too often.
const LARGE: usize = 256 << 10;

/// A digest of a request: the same for two that mean the same.
pub(super) fn of(body: &[u8], message: &Message) -> String {
    let mut hash = Sha256::new();
    let method = message.method.map_or(&b""[..], |span| span.of(body));
    hash.update(method);
    if let Some(params) = message.params {
        let large = params.len() > LARGE;
        object(&mut hash, body, params, &OF_A_ROUND, large);
    }
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..16])
}

/// The members of an object by their keys. The scan has checked the text: it has no
/// errors, and where it had, what was read so far counts.
fn object(hash: &mut Sha256, src: &[u8], span: Span, but: &[&str], as_written: bool) {
    let mut members: Vec<_> = envelope::members(src, span)
        .filter_map(Result::ok)
        .filter(|(key, _)| !but.contains(&&**key))
        .collect();
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    hash.update(b"{");
    for (key, span) in members {
        hash.update(envelope::quote(&key));
        hash.update(b":");
        if as_written {
            hash.update(span.of(src));
        } else {
            value(hash, src, span);
        }
        hash.update(b",");
    }
    hash.update(b"}");
}

/// A value without its white space; numbers as they are written.
fn value(hash: &mut Sha256, src: &[u8], span: Span) {
    let text = span.of(src);
    match text.first() {
        Some(b'{') => object(hash, src, span, &[], false),
        Some(b'[') => {
            hash.update(b"[");
            for element in envelope::elements(src, span).filter_map(Result::ok) {
                value(hash, src, element);
                hash.update(b",");
            }
            hash.update(b"]");
        }
        Some(b'"') => match envelope::string_value(src, span) {
            Some(text) => hash.update(envelope::quote(&text)),
            None => hash.update(text),
        },
        _ => hash.update(text),
    }
}
