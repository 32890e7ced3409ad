use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// A connection and the server's end of it.
async fn pair() -> (Wire, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(client, listener.accept());
    (Wire::new(Io::Tcp(client.unwrap())), server.unwrap().0)
}

fn head(out: &mut Vec<u8>) {
    out.extend_from_slice(b"POST /mcp HTTP/1.1\r\nhost: a\r\n");
}

/// What a request brings when the server sends these pieces, and the connection's state then.
async fn exchange(pieces: &[&[u8]], close: bool) -> (Result<(u16, Bytes), WireError>, bool) {
    let (mut wire, mut server) = pair().await;
    let serve = async {
        for piece in pieces {
            server.write_all(piece).await.unwrap();
            // The next piece is read by itself.
            tokio::task::yield_now().await;
        }
        if close {
            server.shutdown().await.unwrap();
        }
    };
    let ask = async {
        let head = wire.send(head, &Bytes::from_static(b"{}")).await?;
        let body = wire.collect(1 << 20).await?;
        Ok((head.status.as_u16(), body))
    };
    let (answer, ()) = tokio::join!(ask, serve);
    (answer, wire.is_kept())
}

async fn answer(text: &str) -> (u16, Bytes, bool) {
    let (answer, kept) = exchange(&[text.as_bytes()], true).await;
    let (status, body) = answer.unwrap();
    (status, body, kept)
}

#[tokio::test]
async fn a_body_ends_where_its_framing_says() {
    for (lines, body, kept) in [
        ("content-length: 5\r\n\r\nhello", "hello", true),
        ("Content-Length: 0\r\n\r\n", "", true),
        (
            "content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
            "hello",
            true,
        ),
        (
            "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
            true,
        ),
        (
            "transfer-encoding: Chunked\r\n\r\n2;a=b\r\nhe\r\n03 ;x\r\nllo\r\n0\r\nt: 1\r\n\r\n",
            "hello",
            true,
        ),
        (
            "connection: close\r\ncontent-length: 5\r\n\r\nhello",
            "hello",
            false,
        ),
        ("\r\nhello", "hello", false),
    ] {
        let text = format!("{OK}{lines}");
        let expected = (200, Bytes::from(body), kept);
        assert_eq!(answer(&text).await, expected, "{lines:?}");
    }
}

#[tokio::test]
async fn it_does_not_matter_in_which_pieces_a_response_comes() {
    let text = format!(
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{OK}transfer-encoding: chunked\r\n\r\n4\r\nhell\r\n1\r\no\r\n0\r\n\r\n"
    );
    for cut in 1..text.len() {
        let (first, second) = text.as_bytes().split_at(cut);
        let (answer, kept) = exchange(&[first, second], false).await;
        assert_eq!(answer.unwrap(), (200, Bytes::from("hello")), "cut at {cut}");
        assert!(kept, "cut at {cut}");
    }
}

#[tokio::test]
async fn what_two_readers_might_read_differently_is_refused() {
    for lines in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        "content-length: 5, 5\r\n\r\nhello",
        "content-length: +5\r\n\r\nhello",
        "content-length: 0x5\r\n\r\nhello",
        "content-length:\r\n\r\n",
        "content-length: 99999999999999999999\r\n\r\nhello",
        "transfer-encoding: gzip\r\n\r\nhello",
        "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n5 5\r\nhello\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nhello",
        "a: b\r\n c\r\n\r\nhello",
        "a b: c\r\n\r\nhello",
    ] {
        let text = format!("{OK}{lines}");
        let (answer, kept) = exchange(&[text.as_bytes()], true).await;
        assert!(
            matches!(answer, Err(WireError::Malformed(_))),
            "{lines:?}: {answer:?}"
        );
        assert!(!kept, "{lines:?}");
    }
    let text = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let (answer, _) = exchange(&[text.as_bytes()], true).await;
    assert!(matches!(answer, Err(WireError::Malformed(_))), "{answer:?}");
}

#[tokio::test]
async fn a_response_that_is_cut_off_is_no_response() {
    for lines in [
        "",
        "content-length: 5\r\n\r\nhell",
        "transfer-encoding: chunked\r\n\r\n5\r\nhell",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ] {
        let text = format!("{OK}{lines}");
        let (answer, kept) = exchange(&[text.as_bytes()], true).await;
        assert!(
            matches!(answer, Err(WireError::Closed)),
            "{lines:?}: {answer:?}"
        );
        assert!(!kept);
    }
}

#[tokio::test]
async fn bytes_behind_a_response_are_never_the_next_one() {
    let text = format!("{OK}content-length: 2\r\n\r\nok{OK}content-length: 4\r\n\r\nevil");
    let (status, body, kept) = answer(&text).await;
    assert_eq!((status, &body[..], kept), (200, &b"ok"[..], false));
    // Those that come later, too.
    let (mut wire, mut server) = pair().await;
    let ok = format!("{OK}content-length: 2\r\n\r\nok");
    server.write_all(ok.as_bytes()).await.unwrap();
    wire.send(head, &Bytes::new()).await.unwrap();
    wire.collect(10).await.unwrap();
    assert!(wire.is_ready());
    server.write_all(ok.as_bytes()).await.unwrap();
    server.flush().await.unwrap();
    while wire.is_ready() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_idled_is_not_used() {
    let (mut wire, server) = pair().await;
    assert!(wire.is_ready());
    drop(server);
    while wire.is_ready() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_is_read_ends_the_connection() {
    let (mut wire, mut server) = pair().await;
    let refusal = "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno";
    server.write_all(refusal.as_bytes()).await.unwrap();
    // Larger than what the system takes without a reader.
    let body = Bytes::from(vec![b'x'; 64 << 20]);
    let answer = wire.send(head, &body).await.unwrap();
    assert_eq!(answer.status, 413);
    assert_eq!(wire.collect(10).await.unwrap(), "no");
    assert!(!wire.is_kept());
}

#[tokio::test]
async fn a_large_request_arrives_as_it_was_sent() {
    let (mut wire, mut server) = pair().await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = Bytes::from(body.clone());
    let serve = async {
        let mut got =
            vec![0; "POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 3000000\r\n\r\n".len()];
        server.read_exact(&mut got).await.unwrap();
        assert!(got.ends_with(b"content-length: 3000000\r\n\r\n"));
        let mut got = vec![0; body.len()];
        server.read_exact(&mut got).await.unwrap();
        assert!(got == body);
        let ok = format!("{OK}content-length: 2\r\n\r\nok");
        server.write_all(ok.as_bytes()).await.unwrap();
    };
    let (answer, ()) = tokio::join!(wire.send(head, &sent), serve);
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!(wire.collect(10).await.unwrap(), "ok");
    assert!(wire.is_kept());
}

#[tokio::test]
async fn a_body_longer_than_its_reader_takes_is_refused() {
    for lines in [
        "content-length: 2000000\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n1e8480\r\n",
        "\r\n",
    ] {
        let text = format!("{OK}{lines}{}", "x".repeat(2_000_000));
        let (answer, kept) = exchange(&[text.as_bytes()], true).await;
        assert!(
            matches!(
                answer,
                Err(WireError::TooLarge(_) | WireError::Malformed(_))
            ),
            "{lines:?}: {:?}",
            answer.map(|(status, body)| (status, body.len()))
        );
        assert!(!kept);
    }
}

#[tokio::test]
async fn headers_are_found_by_name_without_regard_to_case() {
    let (mut wire, mut server) = pair().await;
    let text = format!("{OK}MCP-Session-Id: s1\r\nContent-Type: Text/Event-Stream; a=b\r\n\r\n");
    server.write_all(text.as_bytes()).await.unwrap();
    let head = wire.send(head, &Bytes::new()).await.unwrap();
    assert_eq!(head.get("mcp-session-id"), Some(&b"s1"[..]));
    assert_eq!(head.get("location"), None);
    assert!(head.is_stream);
}
