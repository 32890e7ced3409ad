//! The reader below the scan: checks RFC 8259 and moves on.
//!
//! It allocates nothing and never recurses; nesting is a bit per level.

use super::MAX_DEPTH;

/// What was wrong, in a byte so that results travel in registers; the place is
/// the reader's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nested too deep.
    Deep,
    /// The text ends inside a value.
    End,
    /// No value begins like this.
    Value,
    /// A key was expected.
    Key,
    /// A colon was expected.
    Colon,
    /// `,` or `}` was expected.
    ObjectNext,
    /// `,` or `]` was expected.
    ArrayNext,
    /// A number that is none.
    Number,
    /// An escape that is none.
    Escape,
    /// A raw control character in a string.
    Control,
    /// Something behind the value.
    Trailing,
}

impl Fault {
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Deep => "nested too deep",
            Self::End => "the text ends too early",
            Self::Value => "expected a value",
            Self::Key => "expected a key in double quotes",
            Self::Colon => "expected ':'",
            Self::ObjectNext => "expected ',' or '}'",
            Self::ArrayNext => "expected ',' or ']'",
            Self::Number => "not a number by RFC 8259",
            Self::Escape => "not an escape by RFC 8259",
            Self::Control => "control characters in strings must be escaped",
            Self::Trailing => "expected the end of the text",
        }
    }
}

/// Position in a text. After an error it stands where the error is.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    pub(super) src: &'a [u8],
    pub(super) pos: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(src: &'a [u8]) -> Self {
        Self { src, pos: 0 }
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.src.get(self.pos).copied()
    }

    /// Skips white space and shows what follows.
    #[inline]
    pub(super) fn next_token(&mut self) -> Option<u8> {
        loop {
            match self.src.get(self.pos) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.pos += 1,
                found => return found.copied(),
            }
        }
    }

    /// The fault for something else than expected: `fault`, or the end.
    #[cold]
    pub(super) fn unexpected(&self, fault: Fault) -> Fault {
        if self.pos < self.src.len() {
            fault
        } else {
            Fault::End
        }
    }

    /// Only white space may follow.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        match self.next_token() {
            None => Ok(()),
            Some(_) => Err(Fault::Trailing),
        }
    }

    /// Key and colon, up to the value. Returns where the key's contents lie and
    /// whether they hold escapes.
    #[inline]
    pub(super) fn key(&mut self) -> Result<(usize, usize, bool), Fault> {
        if self.next_token() != Some(b'"') {
            return Err(self.unexpected(Fault::Key));
        }
        let start = self.pos + 1;
        let escaped = self.string()?;
        let end = self.pos - 1;
        if self.next_token() != Some(b':') {
            return Err(self.unexpected(Fault::Colon));
        }
        self.pos += 1;
        self.next_token();
        Ok((start, end, escaped))
    }

    /// A string, from its opening quote. Returns whether it holds escapes.
    #[inline]
    pub(super) fn string(&mut self) -> Result<bool, Fault> {
        let mut escaped = false;
        self.pos += 1;
        loop {
            self.pos = find_special(self.src, self.pos);
            match self.peek() {
                Some(b'"') => {
                    self.pos += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(Fault::Control),
                None => return Err(Fault::End),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.src.get(self.pos + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.pos += 2,
            Some(b'u') => {
                let digits = self.src.get(self.pos + 2..self.pos + 6);
                if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(Fault::Escape);
                }
                self.pos += 6;
            }
            _ => return Err(Fault::Escape),
        }
        Ok(())
    }

    /// A number. Returns whether it is written as an integer.
    pub(super) fn number(&mut self) -> Result<bool, Fault> {
        if self.peek() == Some(b'-') {
            self.pos += 1;
        }
        match self.peek() {
            Some(b'0') => self.pos += 1,
            _ => self.digits()?,
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.pos += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            integer = false;
            self.pos += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.pos += 1;
            }
            self.digits()?;
        }
        Ok(integer)
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.pos;
        while let Some(b'0'..=b'9') = self.peek() {
            self.pos += 1;
        }
        if self.pos == start {
            return Err(self.unexpected(Fault::Number));
        }
        Ok(())
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Fault> {
        if !self.src[self.pos..].starts_with(word) {
            return Err(Fault::Value);
        }
        self.pos += word.len();
        Ok(())
    }

    /// Skips the value that begins here, inside of `depth` open containers.
    pub(super) fn skip(&mut self, depth: usize) -> Result<(), Fault> {
        let mut open = Open {
            objects: 0,
            count: 0,
            room: MAX_DEPTH - depth,
        };
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{') => {
                    open.push(true)?;
                    self.pos += 1;
                    if self.next_token() != Some(b'}') {
                        self.key()?;
                        continue;
                    }
                    open.pop();
                    self.pos += 1;
                }
                Some(b'[') => {
                    open.push(false)?;
                    self.pos += 1;
                    if self.next_token() != Some(b']') {
                        continue;
                    }
                    open.pop();
                    self.pos += 1;
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                }
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.unexpected(Fault::Value)),
            }
            if self.close(&mut open)? {
                return Ok(());
            }
        }
    }

    /// Behind a value: closes what ends here, and goes to the next value.
    /// Returns whether all is closed.
    #[inline]
    fn close(&mut self, open: &mut Open) -> Result<bool, Fault> {
        loop {
            if open.count == 0 {
                return Ok(true);
            }
            match (self.next_token(), open.in_object()) {
                (Some(b','), true) => {
                    self.pos += 1;
                    self.key()?;
                    return Ok(false);
                }
                (Some(b','), false) => {
                    self.pos += 1;
                    self.next_token();
                    return Ok(false);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.pos += 1;
                    open.pop();
                }
                (_, true) => return Err(self.unexpected(Fault::ObjectNext)),
                (_, false) => return Err(self.unexpected(Fault::ArrayNext)),
            }
        }
    }
}

/// Containers open around a value being skipped; the lowest bit is the innermost.
struct Open {
    objects: u128,
    count: usize,
    room: usize,
}

impl Open {
    #[inline]
    fn push(&mut self, object: bool) -> Result<(), Fault> {
        if self.count == self.room {
            return Err(Fault::Deep);
        }
        self.count += 1;
        self.objects = self.objects << 1 | u128::from(object);
        Ok(())
    }

    #[inline]
    fn pop(&mut self) {
        self.count -= 1;
        self.objects >>= 1;
    }

    #[inline]
    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

/// The next quote, backslash or control character at or behind `at`, or the end.
#[inline]
fn find_special(src: &[u8], mut at: usize) -> usize {
    // Most strings end within a few words; blocks pay for the long ones.
    let near = at + 32;
    while let Some(rest) = src.get(at..) {
        let Some(word) = rest.first_chunk::<8>() else {
            break;
        };
        let hits = special(u64::from_le_bytes(*word));
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
        if at >= near {
            at = skip_plain(src, at);
        }
    }
    let tail = src.get(at..).unwrap_or_default();
    let plain = tail.iter().position(|b| is_special(*b));
    at + plain.unwrap_or(tail.len())
}

/// Skips whole blocks without specials. The loop has no exits inside a block,
/// so that it compiles to vector compares.
fn skip_plain(src: &[u8], mut at: usize) -> usize {
    while let Some(block) = src[at..].first_chunk::<64>() {
        let hit = block.iter().fold(false, |hit, b| hit | is_special(*b));
        if hit {
            break;
        }
        at += 64;
    }
    at
}

#[inline]
fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// The high bit of each byte that is special; bits above the lowest one set may
/// be wrong (a borrow), the lowest never is.
#[inline]
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let quote = below(word ^ (ONES * b'"' as u64), 1);
    let backslash = below(word ^ (ONES * b'\\' as u64), 1);
    (quote | backslash | below(word, 0x20)) & HIGH
}
