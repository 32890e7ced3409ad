use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::{
    call::ProtocolVersion,
    catalog::announce::Seen,
    sealed::KeyRing,
    session::{Session, Sessions, streams::MOST},
};

const GRACE: Duration = Duration::from_secs(60);

fn session(version: ProtocolVersion) -> Arc<Session> {
    let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
    let id = sessions.create("p/a", "p", version, b"{}", b"{}").unwrap();
    sessions.find(&id, "p/a", "p").unwrap()
}

fn event(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The frames that are there now; the last one is empty where the stream has ended.
fn read(reader: &mut Reader) -> Vec<String> {
    let mut frames = Vec::new();
    while let Some(frame) = reader.next().now_or_never() {
        let Some(frame) = frame else {
            frames.push(String::new());
            break;
        };
        frames.push(String::from_utf8(frame.to_vec()).unwrap());
    }
    frames
}

fn data(frames: &[String]) -> Vec<&str> {
    let data = |frame| str::lines(frame).find_map(|line| line.strip_prefix("data: "));
    frames.iter().filter_map(|frame| data(frame)).collect()
}

fn id(frame: &str) -> &str {
    frame
        .lines()
        .find_map(|line| line.strip_prefix("id: "))
        .unwrap()
}

#[tokio::test]
async fn a_stream_goes_on_behind_the_event_that_is_named() {
    let session = session(ProtocolVersion::V2025_11_25);
    let stream = session.call_stream(GRACE);
    let mut first = stream.read(&session, None).unwrap();
    for text in ["1", "2", "3"] {
        stream.push(event(text));
    }
    let frames = read(&mut first);
    assert!(
        frames[0].contains("retry: ") && frames[0].ends_with("data:\n\n"),
        "{frames:?}"
    );
    assert_eq!(data(&frames), ["1", "2", "3"]);
    let (start, second) = (
        session.position(id(&frames[0])),
        session.position(id(&frames[2])),
    );
    drop(first);
    stream.push(event("4"));
    stream.done();
    session.ended_stream(&stream);
    let again = |event: u64| {
        let found = session.stream(stream.id).unwrap();
        read(&mut found.read(&session, Some(event)).unwrap())
    };
    assert_eq!(data(&again(second.unwrap().event)), ["3", "4"]);
    assert_eq!(data(&again(start.unwrap().event)), ["1", "2", "3", "4"]);
    assert_eq!(again(4), [""], "the end");
}

#[tokio::test]
async fn older_versions_get_ids_and_no_event_without_data() {
    let session = session(ProtocolVersion::V2025_06_18);
    let stream = session.call_stream(GRACE);
    let mut reader = stream.read(&session, None).unwrap();
    stream.push(event("1"));
    let frames = read(&mut reader);
    assert_eq!(data(&frames), ["1"]);
    assert!(frames.len() == 1 && session.position(id(&frames[0])).is_some());
    let unnamed = session.call_stream(Duration::ZERO);
    let mut reader = unnamed.read(&session, None).unwrap();
    unnamed.push(event("1"));
    assert_eq!(read(&mut reader), ["event: message\ndata: 1\n\n"]);
}

#[tokio::test]
async fn a_newer_reader_takes_the_stream_over() {
    let session = session(ProtocolVersion::V2025_06_18);
    let stream = session.general_stream(GRACE, Seen::default());
    let mut old = stream.read(&session, None).unwrap();
    assert!(session.unsolicited(event("1")));
    assert_eq!(read(&mut old).len(), 1);
    let mut new = stream.read(&session, Some(1)).unwrap();
    assert!(session.unsolicited(event("2")));
    assert_eq!(read(&mut old), [""]);
    drop(old);
    assert_eq!(data(&read(&mut new)), ["2"]);
    assert!(stream.is_read());
    let other = session.general_stream(GRACE, Seen::default());
    assert_eq!(read(&mut new), [""], "one at a time");
    assert!(!other.is_over() && session.stream(stream.id).is_none());
}

#[tokio::test]
async fn a_reader_that_does_not_read_loses_its_stream_and_no_memory_with_it() {
    let session = session(ProtocolVersion::V2025_06_18);
    let stream = session.general_stream(GRACE, Seen::default());
    let mut reader = stream.read(&session, None).unwrap();
    let large = event(&"x".repeat(BYTES / 4));
    let taken = (0..100)
        .take_while(|_| session.unsolicited(large.clone()))
        .count();
    assert_eq!(taken, 4);
    assert_eq!((stream.bytes(), stream.is_over()), (0, true));
    assert_eq!(read(&mut reader), [""]);
    assert!(!session.is_listening());
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_the_response_stays() {
    let session = session(ProtocolVersion::V2025_06_18);
    let stream = session.call_stream(GRACE);
    let mut reader = stream.read(&session, None).unwrap();
    for _ in 0..1_000 {
        stream.room().await;
        stream.push(event(&"x".repeat(BYTES / 16)));
        read(&mut reader);
        assert!(stream.bytes() <= BYTES);
    }
    let response = event(&"r".repeat(2 * BYTES));
    stream.push(response.clone());
    read(&mut reader);
    drop(reader);
    let mut again = stream.read(&session, Some(1)).unwrap();
    let frames = read(&mut again);
    assert_eq!(data(&frames).last().map(|d| d.len()), Some(response.len()));
}

#[tokio::test]
async fn of_many_streams_that_have_ended_a_few_are_kept() {
    let session = session(ProtocolVersion::V2025_06_18);
    let streams: Vec<_> = (0..100)
        .map(|_| {
            let stream = session.call_stream(GRACE);
            drop(stream.read(&session, None));
            stream.push(event("1"));
            stream.done();
            session.ended_stream(&stream);
            stream
        })
        .collect();
    let kept = streams.iter().filter(|s| session.stream(s.id).is_some());
    assert_eq!(kept.count(), MOST);
    assert!(session.stream(streams[99].id).is_some());
    assert_eq!(session.shared.kept.load(Ordering::Relaxed), 100);
    drop(streams);
    assert_eq!(session.shared.kept.load(Ordering::Relaxed), MOST);
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_kept_open_by_comments() {
    let session = session(ProtocolVersion::V2025_06_18);
    let stream = session.call_stream(GRACE);
    let mut reader = stream.read(&session, None).unwrap();
    let begun = tokio::time::Instant::now();
    for round in 1..4 {
        assert_eq!(reader.next().await.unwrap(), ":\n\n");
        assert_eq!(begun.elapsed().as_secs(), 15 * round);
    }
}
