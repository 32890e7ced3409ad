use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

fn read(max: usize, chunks: &[&[u8]]) -> (Vec<Result<Event, SseError>>, Parser) {
    let mut parser = Parser::new(max);
    let mut events = Vec::new();
    for chunk in chunks {
        parser.push(Bytes::copy_from_slice(chunk));
        events.extend(&mut parser);
    }
    (events, parser)
}

fn data(chunks: &[&str]) -> Vec<String> {
    let chunks: Vec<_> = chunks.iter().map(|c| c.as_bytes()).collect();
    let (events, _) = read(1000, &chunks);
    let text = |e: Result<Event, _>| String::from_utf8(e.unwrap().data.to_vec()).unwrap();
    events.into_iter().map(text).collect()
}

#[test]
fn events_are_read_with_all_their_fields() {
    let src =
        b"\xef\xbb\xbf: hello\r\nid: 7\nevent:message\rdata: {\"a\":1}\nretry: 250\nother: x\n\n";
    let (events, parser) = read(100, &[src]);
    let event = events[0].clone().unwrap();
    assert_eq!(&event.data[..], b"{\"a\":1}");
    assert_eq!(event.id.as_deref(), Some(&b"7"[..]));
    assert_eq!(event.event.as_deref(), Some(&b"message"[..]));
    assert_eq!(event.retry, Some(250));
    assert_eq!(events.len(), 1);
    assert!(!parser.is_inside_event());
}

#[test]
fn lines_end_as_the_standard_says() {
    assert_eq!(data(&["data:a\r\ndata: b\rdata:  c\n\n"]), ["a\nb\n c"]);
    assert_eq!(
        data(&["data: a\r", "\n\r", "\ndata: b\n", "\n"]),
        ["a", "b"]
    );
    assert_eq!(data(&["data\n\ndata:\ndata:\n\n"]), ["", "\n"]);
    assert_eq!(data(&["data: lost"]), [""; 0]);
    assert_eq!(data(&["data: lost\n"]), [""; 0]);
    assert_eq!(data(&["data: a\r\r"]), ["a"], "a CR ends the event at once");
}

#[test]
fn ids_and_retry_count_without_data() {
    let (events, parser) = read(
        100,
        &[b"id: 1\n\nid: a\0b\nretry: 1x\n\nretry: 30\n\ndata: x\n\n"],
    );
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].as_ref().unwrap().id, None);
    assert_eq!(parser.last_event_id().map(|id| &id[..]), Some(&b"1"[..]));
    assert_eq!(parser.retry(), Some(30));
}

#[test]
fn an_event_in_one_chunk_is_not_copied() {
    let chunk = Bytes::from_static(b"event: message\ndata: {\"jsonrpc\":\"2.0\"}\n\n");
    let mut parser = Parser::new(100);
    parser.push(chunk.clone());
    let event = parser.next().unwrap().unwrap();
    assert_eq!(event.data.as_ptr(), chunk[21..].as_ptr());
}

#[test]
fn events_have_a_limit() {
    let too_large = Some(&Err(SseError::TooLarge { max: 20 }));
    for src in [
        &b"data: 0123456789012345\n\n"[..],
        b"data: 0123456789012345",
        b"data: 01234\ndata: 56789\n\n",
        b"data:\ndata:\ndata:\ndata:\ndata:\n",
        b": 01234567890123456789\n",
    ] {
        let (events, mut parser) = read(20, &[src]);
        assert_eq!(events.last(), too_large);
        parser.push(Bytes::from_static(b"\n\ndata: x\n\n"));
        assert_eq!(parser.next(), None, "nothing is read after an error");
    }
    let many = b"data: 01234567890123\n\n: comment\n\n".repeat(100);
    let (events, _) = read(20, &[&many]);
    assert_eq!(events.iter().filter(|e| e.is_ok()).count(), 100);
}

/// The standard's algorithm on a whole stream, word by word.
fn reference(src: &[u8]) -> Vec<Event> {
    let src = src.strip_prefix(BOM).unwrap_or(src);
    let text = String::from_utf8(src.to_vec())
        .unwrap()
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    let Some((lines, _)) = text.rsplit_once('\n') else {
        return Vec::new();
    };
    let mut events = Vec::new();
    let (mut event, mut buffer) = (Event::default(), String::new());
    for line in lines.split('\n') {
        if line.is_empty() {
            let done = mem::take(&mut event);
            if let Some(data) = mem::take(&mut buffer).strip_suffix('\n') {
                events.push(Event {
                    data: data.to_owned().into(),
                    ..done
                });
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        let bytes = Bytes::from(value.to_owned());
        match field {
            "data" => buffer.extend([value, "\n"]),
            "event" => event.event = (!value.is_empty()).then_some(bytes),
            "id" if !value.contains('\0') => event.id = Some(bytes),
            "retry" if value.bytes().all(|b| b.is_ascii_digit()) => {
                event.retry = value.parse().ok().or(event.retry);
            }
            _ => {}
        }
    }
    events
}

const PIECES: &[&str] = &[
    "data", "data: ", "data: {}", "id", "event", "retry: ", "12", ":", " ", "\n", "\n", "\n\n",
    "\r", "\r\n", "\u{feff}", "é", "\u{2028}", "\0", "x",
];

fn stream() -> impl Strategy<Value = Vec<u8>> {
    vec(select(PIECES), 0..40).prop_map(|pieces| pieces.concat().into_bytes())
}

/// `src` cut at the given places.
fn cut(src: &[u8], sizes: &[usize]) -> Vec<Bytes> {
    let mut rest = Bytes::copy_from_slice(src);
    let mut chunks: Vec<_> = sizes
        .iter()
        .map(|n| rest.split_to((*n).min(rest.len())))
        .collect();
    chunks.push(rest);
    chunks
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chunks_give_the_events_of_the_standard(src in stream(), sizes in vec(0usize..4, 0..120)) {
        let want: Vec<_> = reference(&src).into_iter().map(Ok).collect();
        let mut parser = Parser::new(10_000);
        let mut step_by_step = Vec::new();
        for chunk in cut(&src, &sizes) {
            parser.push(chunk);
            step_by_step.extend(&mut parser);
        }
        prop_assert_eq!(&step_by_step, &want);
        let mut parser = Parser::new(10_000);
        cut(&src, &sizes).into_iter().for_each(|chunk| parser.push(chunk));
        prop_assert_eq!(parser.collect::<Vec<_>>(), want);
    }

    #[test]
    fn the_limit_does_not_depend_on_the_chunks(src in stream(), max in 0usize..30, sizes in vec(0usize..4, 0..120)) {
        let (whole, _) = read(max, &[&src]);
        let chunks = cut(&src, &sizes);
        let (cut, _) = read(max, &chunks.iter().map(|c| &c[..]).collect::<Vec<_>>());
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn what_is_encoded_is_read_back(lines in vec("[^\r\n\u{0}]{0,20}", 1..4), end in select(&["\n", "\r", "\r\n"][..])) {
        let mut out = BytesMut::new();
        encode(lines.join(end).as_bytes(), &mut out);
        let (events, _) = read(1000, &[&out]);
        prop_assert_eq!(events.len(), 1);
        let event = events[0].as_ref().unwrap();
        prop_assert_eq!(&event.data, &Bytes::from(lines.join("\n")));
        prop_assert_eq!(event.event.as_deref(), Some(&b"message"[..]));
    }
}
