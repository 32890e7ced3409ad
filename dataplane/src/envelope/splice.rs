//! Edits of a message that leave every other byte as it was.

use bytes::Bytes;

use super::{Span, members, quote};

/// One change of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit<'a> {
    span: Span,
    text: &'a [u8],
    member: Option<Object>,
}

/// What an inserted member goes into: decides commas and braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    Empty,
    Full,
    Null,
    /// None at all: the splice fails.
    No,
}

impl<'a> Edit<'a> {
    /// Puts `text` in the place of `span`.
    #[must_use]
    pub fn replace(span: Span, text: &'a [u8]) -> Self {
        Self {
            span,
            text,
            member: None,
        }
    }
}

/// A few edits of one text, without an allocation.
#[derive(Debug, Default)]
pub struct Edits<'a> {
    few: [Option<Edit<'a>>; FEW],
    count: usize,
}

/// The most edits that one message gets.
const FEW: usize = 4;

impl<'a> Edits<'a> {
    /// Adds one.
    ///
    /// # Panics
    /// There are four: no message gets more.
    pub fn push(&mut self, edit: Edit<'a>) {
        self.few[self.count] = Some(edit);
        self.count += 1;
    }

    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// See [`splice`].
    ///
    /// # Errors
    /// As [`splice`].
    pub fn splice(&self, src: &[u8]) -> Result<Bytes, SpliceError> {
        let nothing = Edit::replace(Span { start: 0, end: 0 }, &[]);
        let mut edits = self.few.map(|edit| edit.unwrap_or(nothing));
        splice(src, &mut edits[..self.count])
    }
}

/// The edits do not fit the text or each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpliceError {
    /// Two edits want the same bytes.
    #[error("two edits overlap at byte {at}")]
    Overlap {
        /// Where the second one begins.
        at: u32,
    },
    /// A member for something else than an object.
    #[error("the value at byte {at} is not an object: nothing can be added to it")]
    NotObject {
        /// Where that value begins.
        at: u32,
    },
    /// An edit lies outside of the text.
    #[error("an edit ends at byte {end} of a text of {len} bytes")]
    Outside {
        /// Where it ends.
        end: u32,
        /// Length of the text.
        len: usize,
    },
}

/// The edit that adds `member` (`"key":value`) at the start of the object at
/// `object`; null becomes an object. Any number may go into one object. For
/// another kind of value [`splice`] fails.
///
/// That the object does not hold the key yet is the caller's to know.
#[must_use]
pub fn insert_member<'a>(src: &[u8], object: Span, member: &'a [u8]) -> Edit<'a> {
    let text = object.of(src);
    let (span, kind) = match text.first() {
        Some(b'{') => {
            let inside = object.start as usize + 1;
            let empty = text[1..].trim_ascii_start().first() == Some(&b'}');
            let kind = if empty { Object::Empty } else { Object::Full };
            (Span::new(inside, inside), kind)
        }
        Some(b'n') => (object, Object::Null),
        _ => (object, Object::No),
    };
    Edit {
        span,
        text: member,
        member: Some(kind),
    }
}

/// The edit that takes the member with the value at `value` out of its object, with one
/// comma. `None`: there is no member with this value. Nothing may be added to an object
/// whose only member goes.
#[must_use]
pub fn remove_member(src: &[u8], value: Span) -> Option<Edit<'static>> {
    let before = |end: usize| src[..end].trim_ascii_end();
    let key = before(value.start as usize).strip_suffix(b":")?;
    let key = key.trim_ascii_end().strip_suffix(b"\"")?;
    // Within a key, a quote has a backslash before it.
    let mut start = memchr::memrchr(b'"', key)?;
    while src[..start].ends_with(b"\\") {
        start = memchr::memrchr(b'"', &src[..start])?;
    }
    let mut end = value.end as usize;
    match before(start).strip_suffix(b",") {
        Some(comma) => start = comma.len(),
        None => {
            let behind = src[end..].trim_ascii_start();
            if let Some(rest) = behind.strip_prefix(b",") {
                end = src.len() - rest.len();
            }
        }
    }
    Some(Edit::replace(Span::new(start, end), b""))
}

/// The text with all edits made, in one allocation. Sorts the edits.
///
/// # Errors
/// Two edits overlap, one lies outside of the text, or one adds a member to
/// something else than an object.
pub fn splice(src: &[u8], edits: &mut [Edit<'_>]) -> Result<Bytes, SpliceError> {
    edits.sort_by_key(|e| (e.span.start, e.span.end));
    let mut len = src.len();
    let mut done = 0;
    for (index, edit) in edits.iter().enumerate() {
        let joined = joined(edits, index);
        if edit.member == Some(Object::No) {
            return Err(SpliceError::NotObject {
                at: edit.span.start,
            });
        }
        if edit.span.start < done && !joined || edit.span.start > edit.span.end {
            return Err(SpliceError::Overlap {
                at: edit.span.start,
            });
        }
        if edit.span.end as usize > src.len() {
            return Err(SpliceError::Outside {
                end: edit.span.end,
                len: src.len(),
            });
        }
        done = edit.span.end;
        let (before, after) = wrapping(edits, index);
        len += before.len() + edit.text.len() + after.len();
        if !joined {
            len -= edit.span.len();
        }
    }
    let mut out = Vec::with_capacity(len);
    let mut at = 0;
    for (index, edit) in edits.iter().enumerate() {
        let (before, after) = wrapping(edits, index);
        if !joined(edits, index) {
            out.extend_from_slice(&src[at..edit.span.start as usize]);
            at = edit.span.end as usize;
        }
        out.extend_from_slice(before);
        out.extend_from_slice(edit.text);
        out.extend_from_slice(after);
    }
    out.extend_from_slice(&src[at..]);
    debug_assert_eq!(out.len(), len);
    Ok(out.into())
}

/// Whether this edit inserts into the same object as the one before.
fn joined(edits: &[Edit<'_>], index: usize) -> bool {
    let edit = &edits[index];
    index > 0
        && edit.member.is_some()
        && (edits[index - 1].member, edits[index - 1].span) == (edit.member, edit.span)
}

/// What goes around an inserted member.
fn wrapping(edits: &[Edit<'_>], index: usize) -> (&'static [u8], &'static [u8]) {
    let followed = index + 1 < edits.len() && joined(edits, index + 1);
    let before: &[u8] = match edits[index].member {
        Some(Object::Null) if !joined(edits, index) => b"{",
        _ => b"",
    };
    let after: &[u8] = match edits[index].member {
        None => b"",
        Some(_) if followed => b",",
        Some(Object::Full) => b",",
        Some(Object::Null) => b"}",
        Some(Object::Empty | Object::No) => b"",
    };
    (before, after)
}

/// The text of an object without the members of these names; the others stay as they are.
#[must_use]
pub fn without(src: &[u8], object: Span, names: &[&str]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(object.len());
    kept.push(b'{');
    // It has been scanned: every member can be read.
    for (key, value) in members(src, object).flatten() {
        if names.contains(&&*key) {
            continue;
        }
        if kept.len() > 1 {
            kept.push(b',');
        }
        kept.extend_from_slice(&quote(&key));
        kept.push(b':');
        kept.extend_from_slice(value.of(src));
    }
    kept.push(b'}');
    kept
}
