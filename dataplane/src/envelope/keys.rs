//! The keys of one object seen so far: has this one come before?

use std::{borrow::Cow, collections::HashSet};

/// Unknown keys compared one by one before a set is worth its allocation.
const FEW: usize = 16;

/// Keys of one object. Those of the level's table are bits, the others are kept.
pub(super) struct Seen<'a> {
    known: u32,
    few: [&'a [u8]; FEW],
    count: usize,
    many: Option<HashSet<Cow<'a, [u8]>>>,
}

impl<'a> Seen<'a> {
    pub(super) fn new() -> Self {
        Self {
            known: 0,
            few: [&[]; FEW],
            count: 0,
            many: None,
        }
    }

    /// Notes the key in row `row` of the table; `false` when it was there.
    pub(super) fn note_known(&mut self, row: usize) -> bool {
        let bit = 1 << row;
        let new = self.known & bit == 0;
        self.known |= bit;
        new
    }

    /// Notes an unescaped key outside of the table; `false` when it was there.
    pub(super) fn note(&mut self, key: Cow<'a, [u8]>) -> bool {
        if let Some(many) = &mut self.many {
            return many.insert(key);
        }
        let few = &self.few[..self.count];
        match key {
            Cow::Borrowed(key) if self.count < FEW => {
                let new = !few.contains(&key);
                self.few[self.count] = key;
                self.count += 1;
                new
            }
            key => {
                let mut many: HashSet<_> = few.iter().map(|k| Cow::Borrowed(*k)).collect();
                let new = many.insert(key);
                self.many = Some(many);
                new
            }
        }
    }
}

/// Whether a parser that ignores case takes `key` for `name` (ASCII). Such
/// parsers fold the long s and the Kelvin sign too.
pub(super) fn folds_to(key: &[u8], name: &[u8]) -> bool {
    if key.is_ascii() {
        return key.eq_ignore_ascii_case(name);
    }
    let Ok(key) = std::str::from_utf8(key) else {
        return false;
    };
    let folded = key.chars().map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    });
    folded.eq(name.iter().map(|b| char::from(b.to_ascii_lowercase())))
}
