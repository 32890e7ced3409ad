//! [`List`]: the entries of one list of one backend, packed.
//!
//! A data plane holds the lists of ten thousand backends. Entries stand one after the other in
//! one text of exactly their length, and what is known of each is where it is in there: nothing
//! of the answers in which they came is kept.

use std::borrow::Cow;

use crate::envelope::{self, Span};

/// One list of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    text: Box<[u8]>,
    places: Box<[Place]>,
}

/// Where an entry is in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    entry: Span,
    id: Span,
    name: Span,
}

/// One entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The object as the backend wrote it.
    pub json: &'a [u8],
    /// Where in `json` its `name` is, with quotes.
    pub name: Span,
    id: Span,
}

impl<'a> Item<'a> {
    /// Reads an entry whose member `id` identifies it. `None`: it lacks that or its name, or
    /// what identifies it is there twice.
    pub(super) fn read(id: &str, json: &'a [u8]) -> Option<Self> {
        let whole = Span {
            start: 0,
            end: u32::try_from(json.len()).ok()?,
        };
        let (mut found, mut name) = (None, None);
        for member in envelope::members(json, whole) {
            let (key, value) = member.ok()?;
            if key == id {
                if found.is_some() {
                    return None;
                }
                envelope::string_value(json, value)?;
                found = Some(value);
            }
            if key == "name" {
                envelope::string_value(json, value)?;
                name = Some(value);
            }
        }
        Some(Self {
            json,
            name: name?,
            id: found?,
        })
    }

    /// `name`, or `uri`, or `uriTemplate`: what identifies it.
    #[must_use]
    pub fn id(&self) -> Cow<'a, str> {
        // It was read once.
        envelope::string_value(self.json, self.id).unwrap_or_default()
    }

    /// JSON string literal of what identifies it, as the backend wrote it.
    #[must_use]
    pub fn id_literal(&self) -> &'a [u8] {
        self.id.of(self.json)
    }
}

impl List {
    /// The entries with these JSON texts, whose member `id` identifies them; what is no entry
    /// is left out.
    #[must_use]
    pub fn of<T: AsRef<[u8]>>(id: &str, texts: impl IntoIterator<Item = T>) -> Self {
        let mut list = Builder::default();
        for text in texts {
            if let Some(item) = Item::read(id, text.as_ref()) {
                list.push(&item);
            }
        }
        list.build()
    }

    /// The entries, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Item<'_>> {
        self.places.iter().map(|place| Item {
            json: place.entry.of(&self.text),
            name: place.name,
            id: place.id,
        })
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The bytes of all entries together.
    pub(super) const fn bytes(&self) -> usize {
        self.text.len()
    }
}

/// A list that is being read.
#[derive(Default)]
pub(super) struct Builder {
    text: Vec<u8>,
    places: Vec<Place>,
}

impl Builder {
    /// Adds an entry. One for which there is no room is left out.
    pub(super) fn push(&mut self, item: &Item<'_>) {
        let start = self.text.len();
        let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(start + item.json.len()))
        else {
            return;
        };
        self.text.extend_from_slice(item.json);
        self.places.push(Place {
            entry: Span { start, end },
            id: item.id,
            name: item.name,
        });
    }

    /// How many entries there are so far.
    pub(super) const fn len(&self) -> usize {
        self.places.len()
    }

    /// The list, with no room for more.
    pub(super) fn build(self) -> List {
        List {
            text: self.text.into(),
            places: self.places.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_they_were_written() {
        let texts = [
            r#"{"uri":"x://1","name":"a","n":1.10}"#,
            r#"{ "name" : "b\"é", "uri" : "x:\/\/2" }"#,
        ];
        let list = List::of("uri", texts);
        let read: Vec<_> = list
            .iter()
            .map(|item| (item.json, item.id(), item.name.of(item.json)))
            .collect();
        assert_eq!(
            read,
            [
                (texts[0].as_bytes(), "x://1".into(), &br#""a""#[..]),
                (texts[1].as_bytes(), "x://2".into(), "\"b\\\"é\"".as_bytes()),
            ]
        );
        assert_eq!(list.bytes(), texts.concat().len());
    }

    #[test]
    fn what_has_no_name_or_no_id_or_two_of_it_is_no_entry() {
        for text in [
            r#"{"uri":"x://1"}"#,
            r#"{"name":"a"}"#,
            r#"{"name":1,"uri":"x://1"}"#,
            r#"{"name":"a","uri":"x://1","uri":"x://2"}"#,
            r#"["name","uri"]"#,
        ] {
            assert!(List::of("uri", [text]).is_empty(), "{text}");
        }
    }
}
