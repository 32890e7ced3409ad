//! An incremental reader of `text/event-stream` (WHATWG HTML, section 9.2): the
//! data of each event, however the bytes are cut.

/// Collects bytes and gives the data of whole events.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The line that has begun.
    line: Vec<u8>,
    /// Data lines of the event that has begun.
    data: Option<Vec<u8>>,
    /// The last byte was CR: an LF that follows belongs to the same line end.
    after_cr: bool,
    /// A line has ended before, so a byte-order mark cannot come any more.
    started: bool,
    /// Bytes held for the event that has begun.
    held: usize,
    limit: usize,
}

/// An event is longer than the limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the answer is longer than {limit} bytes")]
pub(crate) struct TooLong {
    limit: usize,
}

impl Reader {
    /// A reader that takes events of up to `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Takes a piece of the stream and returns the data of the events it ends.
    ///
    /// # Errors
    /// An event is longer than the limit.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut events = Vec::new();
        for &byte in chunk {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ => {
                    self.held += 1;
                    if self.held > self.limit {
                        return Err(TooLong { limit: self.limit });
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(events)
    }

    /// Ends a line; an empty one ends the event.
    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.started, true);
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if first => rest,
            _ => &line[..],
        };
        if line.is_empty() {
            self.held = 0;
            return self.data.take();
        }
        // `data`, `data:x` and `data: x`; comments and other fields do not matter here.
        let rest = line.strip_prefix(b"data")?;
        let value = match rest {
            [] => rest,
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            _ => return None,
        };
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => self.data = Some(value.to_vec()),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], step: usize) -> Vec<String> {
        let mut reader = Reader::new(1_000);
        text.chunks(step)
            .flat_map(|chunk| reader.push(chunk).unwrap())
            .map(|data| String::from_utf8(data).unwrap())
            .collect()
    }

    #[test]
    fn any_cutting_gives_the_same_events() {
        let text = "\u{feff}: hello\r\nevent: message\r\nid: 1\r\ndata: {\"a\":\"é\"}\r\n\r\ndata:one\rdata: two\rdata\r\r\
                    retry: 5\n\ndatabase: no\n\ndata:  x\n\ndata: cut off";
        let expected = ["{\"a\":\"é\"}", "one\ntwo\n", " x"];
        for step in 1..text.len() {
            assert_eq!(
                read(text.as_bytes(), step),
                expected,
                "cut every {step} bytes"
            );
        }
    }

    #[test]
    fn a_priming_event_has_empty_data() {
        assert_eq!(read(b"id: 7\ndata:\n\ndata: {}\n\n", 3), ["", "{}"]);
    }

    #[test]
    fn an_endless_event_is_refused_and_short_ones_do_not_add_up() {
        let mut reader = Reader::new(20);
        for _ in 0..100 {
            assert_eq!(reader.push(b"data: 0123456789\n\n").unwrap().len(), 1);
        }
        assert_eq!(
            reader.push(b"data: 0123456789\ndata: 0123456789"),
            Err(TooLong { limit: 20 })
        );
    }
}
