//! JSON strings: to text and back.

use std::borrow::Cow;

use memchr::memchr2;

use super::Span;

/// The text of the JSON string (with its quotes) at `span`.
///
/// `None` when there is no such string, or when it holds a lone surrogate and
/// so has no text.
#[must_use]
pub fn string_value(src: &[u8], span: Span) -> Option<Cow<'_, str>> {
    let inner = src
        .get(span.range())?
        .strip_prefix(b"\"")?
        .strip_suffix(b"\"")?;
    text(inner)
}

/// The text of a string's contents.
pub(super) fn text(inner: &[u8]) -> Option<Cow<'_, str>> {
    if memchr2(b'"', b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    String::from_utf8(unescape(inner)?).ok().map(Cow::Owned)
}

/// A JSON string literal with this text.
#[must_use]
pub fn quote(text: &str) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut out = Vec::with_capacity(text.len() + 2);
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0..0x20 => {
                out.extend(b"\\u00");
                out.extend([byte >> 4, byte & 15].map(|digit| HEX[digit as usize]));
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
    out
}

/// A string's contents without escapes. `None`: a lone surrogate, or no string.
#[cold]
pub(super) fn unescape(inner: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        out.extend(&rest[..at]);
        if rest[at] == b'"' {
            return None;
        }
        let (&code, behind) = rest[at + 1..].split_first()?;
        rest = behind;
        match code {
            b'"' | b'\\' | b'/' => out.push(code),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let (found, behind) = code_point(rest)?;
                out.extend(found.encode_utf8(&mut [0; 4]).as_bytes());
                rest = behind;
            }
            _ => return None,
        }
    }
    out.extend(rest);
    Some(out)
}

/// The character of the `\u` escape whose digits begin here, pairs joined.
fn code_point(digits: &[u8]) -> Option<(char, &[u8])> {
    let (unit, rest) = hex4(digits)?;
    if !(0xd800..0xdc00).contains(&unit) {
        return Some((char::from_u32(unit)?, rest));
    }
    let (low, rest) = hex4(rest.strip_prefix(b"\\u")?)?;
    if !(0xdc00..0xe000).contains(&low) {
        return None;
    }
    let joined = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
    Some((char::from_u32(joined)?, rest))
}

fn hex4(digits: &[u8]) -> Option<(u32, &[u8])> {
    let (four, rest) = digits.split_at_checked(4)?;
    let mut unit = 0;
    for digit in four {
        unit = unit << 4 | char::from(*digit).to_digit(16)?;
    }
    Some((unit, rest))
}
