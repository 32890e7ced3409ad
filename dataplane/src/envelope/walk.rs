//! Members and elements one by one, for the paths that are not hot.

use std::borrow::Cow;

use super::{
    ScanError, Span,
    json::{Fault, Reader},
    text::text,
};

/// The members of the object at `object`, in order, values as they are written.
/// Null has none.
///
/// Keys come unescaped; repeated ones are given each time. The iterator ends
/// after an error: the value is no object, is broken, or a key has no text.
#[must_use]
pub fn members(src: &[u8], object: Span) -> Members<'_> {
    Members(Items::new(src, object, b'{', b'}'))
}

/// The value of one member of the object at `object`.
#[must_use]
pub fn member(src: &[u8], object: Span, name: &str) -> Option<Span> {
    let mut members = members(src, object).filter_map(Result::ok);
    members.find_map(|(key, value)| (key == name).then_some(value))
}

/// The elements of the array at `array`, in order, as they are written.
///
/// The iterator ends after an error: the value is no array, or is broken.
#[must_use]
pub fn elements(src: &[u8], array: Span) -> Elements<'_> {
    Elements(Items::new(src, array, b'[', b']'))
}

/// See [`members`].
#[derive(Debug)]
pub struct Members<'a>(Items<'a>);

/// See [`elements`].
#[derive(Debug)]
pub struct Elements<'a>(Items<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = Result<(Cow<'a, str>, Span), ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        let src = self.0.json.src;
        self.0.next(|json| {
            let (start, end, _) = json.key()?;
            let Some(key) = text(&src[start..end]) else {
                json.pos = start;
                return Err(Fault::Escape);
            };
            Ok((key, value(json)?))
        })
    }
}

impl Iterator for Elements<'_> {
    type Item = Result<Span, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(value)
    }
}

/// Skips the value here and gives its place.
fn value(json: &mut Reader<'_>) -> Result<Span, Fault> {
    let start = json.pos;
    json.skip(1)?;
    Ok(Span::new(start, json.pos))
}

/// What both iterators are: an object or array being read.
#[derive(Debug)]
struct Items<'a> {
    json: Reader<'a>,
    state: State,
    open: u8,
    close: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Before,
    Inside,
    Done,
}

impl<'a> Items<'a> {
    fn new(src: &'a [u8], span: Span, open: u8, close: u8) -> Self {
        let mut json = Reader::new(src.get(..span.end as usize).unwrap_or(src));
        json.pos = (span.start as usize).min(json.src.len());
        Self {
            json,
            state: State::Before,
            open,
            close,
        }
    }

    fn next<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, Fault>,
    ) -> Option<Result<T, ScanError>> {
        let item = self.item(read).transpose();
        if !matches!(item, Some(Ok(_))) {
            self.state = State::Done;
        }
        item
    }

    fn item<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, Fault>,
    ) -> Result<Option<T>, ScanError> {
        let token = match self.state {
            State::Done => return Ok(None),
            _ => self.json.next_token(),
        };
        match (self.state, token) {
            (State::Before, Some(b'n')) if self.open == b'{' => return Ok(None),
            (State::Before, found) if found != Some(self.open) => {
                return Err(match self.open {
                    b'{' => ScanError::NotObject,
                    _ => ScanError::NotArray,
                });
            }
            (State::Before, _) => {
                self.json.pos += 1;
                if self.json.next_token() == Some(self.close) {
                    return Ok(None);
                }
            }
            (_, Some(b',')) => {
                self.json.pos += 1;
                self.json.next_token();
            }
            (_, found) if found == Some(self.close) => return Ok(None),
            _ => {
                let fault = match self.open {
                    b'{' => Fault::ObjectNext,
                    _ => Fault::ArrayNext,
                };
                let fault = self.json.unexpected(fault);
                return Err(ScanError::from_fault(fault, self.json.pos));
            }
        }
        self.state = State::Inside;
        let item = read(&mut self.json);
        item.map(Some)
            .map_err(|fault| ScanError::from_fault(fault, self.json.pos))
    }
}
