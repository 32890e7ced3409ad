//! The walk over the levels we read; everything else is skipped by the reader.

use std::borrow::Cow;

use super::{
    Kind, Message, ScanError, Span,
    json::{Fault, Reader},
    keys::{Seen, folds_to},
    levels::{Level, Shape, TOP, VERSION},
    text::unescape,
    walk::members,
};

/// Finds the members of one JSON-RPC message, and checks all of its text.
///
/// # Errors
/// The text is no JSON, no JSON-RPC 2.0 message, or one that two parsers might
/// read differently.
pub fn scan(src: &[u8]) -> Result<Message, ScanError> {
    check(src)?;
    let mut scanner = Scanner {
        json: Reader::new(src),
        found: Message::default(),
        version: false,
        null_id: false,
    };
    scanner.message().map_err(|e| e.with_id(find_id(src)))
}

/// The messages of a batch, each to be scanned by itself: spans of [`scan`] on
/// one of them count from its start.
///
/// # Errors
/// The text is no JSON, not an array, or an empty one.
pub fn scan_batch(src: &[u8]) -> Result<Vec<Span>, ScanError> {
    check(src)?;
    let mut json = Reader::new(src);
    json.next_token();
    let start = json.pos;
    json.skip(0)
        .and_then(|()| {
            let end = json.pos;
            json.end().map(|()| end)
        })
        .map_err(|fault| ScanError::from_fault(fault, json.pos))
        .and_then(|end| super::elements(src, Span::new(start, end)).collect())
        .and_then(|found: Vec<_>| match found.is_empty() {
            true => Err(ScanError::EmptyBatch),
            false => Ok(found),
        })
}

/// Length and UTF-8.
fn check(src: &[u8]) -> Result<(), ScanError> {
    if u32::try_from(src.len()).is_err() {
        return Err(ScanError::TooLong { len: src.len() });
    }
    match std::str::from_utf8(src) {
        Ok(_) => Ok(()),
        Err(e) => Err(ScanError::NotUtf8 {
            at: e.valid_up_to(),
        }),
    }
}

/// The id of a refused message: only when it is there once and well formed.
#[cold]
fn find_id(src: &[u8]) -> Option<Span> {
    let mut json = Reader::new(src);
    json.next_token();
    let start = json.pos;
    json.skip(0).ok()?;
    let object = Span::new(start, json.pos);
    json.end().ok()?;
    let mut found = None;
    for member in members(src, object) {
        let (key, value) = member.ok()?;
        if key == "id" && found.replace(value).is_some() {
            return None;
        }
    }
    let id = found?;
    let mut scanner = Scanner {
        json: Reader::new(src),
        found: Message::default(),
        version: true,
        null_id: false,
    };
    scanner.json.pos = id.start as usize;
    scanner.id().ok()?;
    scanner.found.id
}

struct Scanner<'a> {
    json: Reader<'a>,
    found: Message,
    version: bool,
    null_id: bool,
}

impl<'a> Scanner<'a> {
    fn message(&mut self) -> Result<Message, ScanError> {
        match self.json.next_token() {
            Some(b'{') => {}
            Some(b'[') => return Err(ScanError::Batch),
            _ => {
                let whole = self.json.skip(0).and_then(|()| self.json.end());
                whole.map_err(|fault| self.fault(fault))?;
                return Err(ScanError::NotObject);
            }
        }
        self.object(&TOP)?;
        self.json.end().map_err(|fault| self.fault(fault))?;
        self.classify()
    }

    fn fault(&self, fault: Fault) -> ScanError {
        ScanError::from_fault(fault, self.json.pos)
    }

    /// Looks into the object that begins here.
    fn object(&mut self, level: &'static Level) -> Result<(), ScanError> {
        let mut seen = Seen::new();
        self.json.pos += 1;
        if self.json.next_token() == Some(b'}') {
            self.json.pos += 1;
            return Ok(());
        }
        loop {
            match self.key(level, &mut seen)? {
                Some(row) => self.member(level, row)?,
                None => self.json.skip(level.depth).map_err(|f| self.fault(f))?,
            }
            match self.json.next_token() {
                Some(b',') => self.json.pos += 1,
                Some(b'}') => {
                    self.json.pos += 1;
                    return Ok(());
                }
                _ => return Err(self.fault(self.json.unexpected(Fault::ObjectNext))),
            }
        }
    }

    /// Reads a key and finds its row; refuses one that was there before, and
    /// one that not all parsers read alike.
    fn key(
        &mut self,
        level: &'static Level,
        seen: &mut Seen<'a>,
    ) -> Result<Option<usize>, ScanError> {
        let (start, end, escaped) = self.json.key().map_err(|f| self.fault(f))?;
        let mut key = Cow::Borrowed(&self.json.src[start..end]);
        if escaped {
            key = match unescape(&key) {
                Some(key) if !key.contains(&0) => Cow::Owned(key),
                _ => return Err(unclear(level, start, &key, "another key")),
            };
        }
        let row = level.rows.iter().position(|r| r.key.as_bytes() == &*key);
        if row.is_none()
            && let Some(like) = level.rows.iter().find(|r| folds_to(&key, r.key.as_bytes()))
        {
            return Err(unclear(level, start, &key, like.key));
        }
        let new = match row {
            Some(row) => seen.note_known(row),
            None => seen.note(key),
        };
        if !new {
            return Err(ScanError::DuplicateKey {
                at: start,
                path: level.path,
                key: shown(&self.json.src[start..end]),
                id: None,
            });
        }
        Ok(row)
    }

    /// Reads the value of a member we know and notes its place.
    fn member(&mut self, level: &'static Level, index: usize) -> Result<(), ScanError> {
        let row = &level.rows[index];
        let start = self.json.pos;
        let token = self.json.peek();
        let wrong = |what| ScanError::BadMember {
            at: start,
            path: level.path,
            key: row.key,
            what,
            id: None,
        };
        match (row.shape, token) {
            (Shape::Id, _) => return self.id(),
            (Shape::Method, Some(b'"')) => {
                if self.json.string().map_err(|f| self.fault(f))? {
                    return Err(wrong("a method is written without escapes"));
                }
                self.found.method = Some(Span::new(start + 1, self.json.pos - 1));
                return Ok(());
            }
            (Shape::Text | Shape::Token, Some(b'"')) => {
                if !self.routed_string()? {
                    return Err(wrong("a NUL or a lone surrogate in it"));
                }
            }
            (Shape::Token, Some(b'-' | b'0'..=b'9')) => {
                if !self.json.number().map_err(|f| self.fault(f))? {
                    return Err(wrong("expected a string or an integer"));
                }
            }
            (Shape::Object(inner) | Shape::Perhaps(inner), Some(b'{')) => self.object(inner)?,
            (shape, _) => {
                self.json.skip(level.depth).map_err(|f| self.fault(f))?;
                match shape {
                    Shape::Any | Shape::Perhaps(_) => {}
                    Shape::Object(_) if token == Some(b'n') => {}
                    Shape::Text | Shape::Token if token == Some(b'n') => return Ok(()),
                    Shape::Object(_) => return Err(wrong("expected an object")),
                    Shape::Token => return Err(wrong("expected a string or an integer")),
                    Shape::Text | Shape::Method | Shape::Id => {
                        return Err(wrong("expected a string"));
                    }
                }
            }
        }
        let span = Span::new(start, self.json.pos);
        if level.depth == 1 && index == VERSION {
            self.version = span.of(self.json.src) == b"\"2.0\"";
        } else {
            *(row.slot)(&mut self.found) = Some(span);
        }
        Ok(())
    }

    /// A string that all parsers must read alike; `false` when they might not:
    /// some cut at a NUL, and each has its own answer to a lone surrogate.
    fn routed_string(&mut self) -> Result<bool, ScanError> {
        let start = self.json.pos + 1;
        if !self.json.string().map_err(|f| self.fault(f))? {
            return Ok(true);
        }
        let text = unescape(&self.json.src[start..self.json.pos - 1]);
        Ok(text.is_some_and(|text| !text.contains(&0)))
    }

    fn id(&mut self) -> Result<(), ScanError> {
        let start = self.json.pos;
        let bad = |what| Err(ScanError::BadId { what });
        match self.json.peek() {
            Some(b'"') => {
                if !self.routed_string()? {
                    return bad("a NUL or a lone surrogate in it");
                }
            }
            Some(b'-' | b'0'..=b'9') => {
                if !self.json.number().map_err(|f| self.fault(f))? {
                    return bad("a number must be written as an integer");
                }
            }
            token => {
                self.json.skip(TOP.depth).map_err(|f| self.fault(f))?;
                if token != Some(b'n') {
                    return bad("expected a string or an integer");
                }
                self.null_id = true;
                return Ok(());
            }
        }
        self.found.id = Some(Span::new(start, self.json.pos));
        Ok(())
    }

    /// What the message is, by the members it has.
    fn classify(&self) -> Result<Message, ScanError> {
        let mut found = self.found;
        if !self.version {
            return Err(ScanError::BadVersion { id: None });
        }
        let what = match (found.method, found.result, found.error) {
            (Some(_), None, None) => {
                found.kind = match found.id {
                    Some(_) => Kind::Request,
                    None => Kind::Notification,
                };
                ""
            }
            (None, Some(_), None) => {
                found.kind = Kind::Response;
                ""
            }
            (None, None, Some(_)) => {
                found.kind = Kind::Error;
                ""
            }
            (None, None, None) => "it has no \"method\", \"result\" or \"error\"",
            (None, ..) => "it has both \"result\" and \"error\"",
            (Some(_), ..) => "it has \"method\" beside \"result\" or \"error\"",
        };
        if !what.is_empty() {
            return Err(ScanError::Ambiguous { what, id: None });
        }
        if found.method.is_none() && found.params.is_some() {
            let what = "it has \"params\" beside \"result\" or \"error\"";
            return Err(ScanError::Ambiguous { what, id: None });
        }
        match (found.kind, found.id) {
            (Kind::Request | Kind::Notification, _) if self.null_id => Err(ScanError::BadId {
                what: "null is no id for a request: leave it out for a notification",
            }),
            (Kind::Response, None) => Err(ScanError::BadId {
                what: "a result needs the id of its request",
            }),
            _ => Ok(found),
        }
    }
}

#[cold]
fn unclear(level: &Level, at: usize, key: &[u8], like: &'static str) -> ScanError {
    ScanError::UnclearKey {
        at,
        path: level.path,
        key: shown(key),
        like,
        id: None,
    }
}

/// A key for people: unescaped where it can be, and short.
#[cold]
fn shown(key: &[u8]) -> String {
    let text = unescape(key).unwrap_or_else(|| key.to_vec());
    String::from_utf8_lossy(&text).chars().take(64).collect()
}
