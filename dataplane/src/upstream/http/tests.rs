use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    auth::Auth,
    call::{Answer, Call, Method, Reply},
    envelope,
    upstream::address::Address,
};

/// A request as the server saw it.
struct Seen {
    path: String,
    /// Method of the message; empty for a response.
    method: String,
    /// Source text of its id.
    id: String,
}

type Script = Box<dyn Fn(&Seen) -> String + Send + Sync>;

/// A server that answers what its script says, as raw HTTP.
struct Server {
    script: Mutex<Arc<Script>>,
    connections: AtomicUsize,
    seen: Mutex<Vec<String>>,
}

impl Server {
    async fn start(script: impl Fn(&Seen) -> String + Send + Sync + 'static) -> (Arc<Self>, Http) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Arc::new(Self {
            script: Mutex::new(Arc::new(Box::new(script))),
            connections: AtomicUsize::new(0),
            seen: Mutex::default(),
        });
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Relaxed);
                tokio::spawn(serving.clone().connection(stream));
            }
        });
        let http = Http::new(HttpConfig {
            name: "b".to_owned(),
            serial: 1,
            origin: Origin {
                address: Address::Tcp {
                    host: "127.0.0.1".to_owned(),
                    port,
                },
                tls: None,
            },
            url: format!("http://127.0.0.1:{port}/mcp").parse().unwrap(),
            headers: headers::base(HeaderMap::new()),
            workers: 1,
        });
        (server, http.unwrap())
    }

    fn becomes(&self, script: impl Fn(&Seen) -> String + Send + Sync + 'static) {
        *self.script.lock() = Arc::new(Box::new(script));
    }

    fn times(&self, method: &str) -> usize {
        self.seen.lock().iter().filter(|m| *m == method).count()
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some(seen) = read(&mut stream).await {
            self.seen.lock().push(seen.method.clone());
            let answer = (self.script.lock().clone())(&seen);
            // In two pieces where the script says so.
            for piece in answer.split("|CUT|") {
                if stream.get_mut().write_all(piece.as_bytes()).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let (mut verb, mut path, mut length) = (String::new(), String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if path.is_empty() {
            let mut words = line.split(' ').map(ToOwned::to_owned);
            (verb, path) = (words.next()?, words.next()?);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    if verb != "POST" {
        return Some(Seen {
            path,
            method: verb,
            id: String::new(),
        });
    }
    let message = envelope::scan(&body).ok()?;
    let text = |span: Option<envelope::Span>| {
        span.map_or_else(String::new, |s| {
            String::from_utf8_lossy(s.of(&body)).into_owned()
        })
    };
    Some(Seen {
        path,
        method: text(message.method),
        id: text(message.id),
    })
}

fn answer(status: &str, more: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn result(seen: &Seen, result: &str) -> String {
    let body = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, seen.id);
    answer("200 OK", "", &body)
}

fn error(seen: &Seen, status: &str, code: i64) -> String {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":{code},"message":"no"}}}}"#,
        seen.id
    );
    answer(status, "", &body)
}

/// A server of 2025-11-25 without sessions.
fn legacy(seen: &Seen) -> String {
    match seen.method.as_str() {
        "server/discover" => error(seen, "400 Bad Request", -32_000),
        "initialize" => result(
            seen,
            r#"{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{}}"#,
        ),
        "notifications/initialized" => answer("202 Accepted", "", ""),
        _ => result(seen, r#"{"spoke":"legacy"}"#),
    }
}

/// A server of 2026-07-28.
fn modern(seen: &Seen) -> String {
    match seen.method.as_str() {
        "server/discover" => result(
            seen,
            r#"{"supportedVersions":["2026-07-28"],"capabilities":{}}"#,
        ),
        "initialize" => error(seen, "400 Bad Request", -32_022),
        _ => result(seen, r#"{"resultType":"complete","spoke":"modern"}"#),
    }
}

/// What a server of 2026-07-28 says to a request of the legacy era.
fn modern_to_legacy(seen: &Seen) -> String {
    match seen.method.as_str() {
        "server/discover" | "initialize" => modern(seen),
        _ => error(seen, "400 Bad Request", -32_020),
    }
}

fn call(version: ProtocolVersion) -> Call {
    let body = Bytes::from_static(
        br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t","_meta":{}}}"#,
    );
    Call {
        worker: WorkerId(0),
        version,
        method: Method::ToolsCall,
        message: envelope::scan(&body).unwrap(),
        body,
        target: None,
        param_headers: Vec::new(),
        principal: Auth::anonymous(),
        session: None,
        rounds: Default::default(),
    }
}

const NEW: ProtocolVersion = ProtocolVersion::V2026_07_28;

async fn whole(http: &Http, version: ProtocolVersion) -> Answer {
    match http.call(call(version)).await.unwrap() {
        Reply::Whole(answer) => answer,
        Reply::Parts(_) | Reply::Stream(_) => panic!("no whole answer"),
    }
}

async fn text(http: &Http) -> String {
    String::from_utf8(whole(http, NEW).await.body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_server_that_was_replaced_by_one_of_the_other_era_is_met_anew() {
    let (server, http) = Server::start(legacy).await;
    assert!(text(&http).await.contains("legacy"));
    server.becomes(modern_to_legacy);
    // The refusal tells; the client sees that one.
    assert_eq!(whole(&http, NEW).await.error, Some(-32_020));
    server.becomes(modern);
    assert!(text(&http).await.contains("modern"));
}

#[tokio::test]
async fn refusals_that_a_modern_server_understood_do_not_cast_doubt_on_its_era() {
    let (server, http) = Server::start(modern).await;
    text(&http).await;
    server.becomes(|seen| match seen.method.as_str() {
        "tools/call" => error(seen, "404 Not Found", -32_601),
        _ => modern(seen),
    });
    for _ in 0..10 {
        assert_eq!(whole(&http, NEW).await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(server.times("server/discover"), 1);
    server.becomes(legacy);
    server.becomes(|seen| match seen.method.as_str() {
        "tools/call" => error(seen, "400 Bad Request", -32_000),
        _ => legacy(seen),
    });
    for _ in 0..3 {
        whole(&http, NEW).await;
    }
    server.becomes(legacy);
    assert!(text(&http).await.contains("legacy"));
}

#[tokio::test]
async fn a_connection_is_used_again_after_an_event_stream() {
    let (server, http) = Server::start(|seen| match seen.method.as_str() {
        "tools/call" => {
            let event = format!(
                "data: {{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{\"resultType\":\"complete\"}}}}\n\n",
                seen.id
            );
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {:x}\r\n{event}\r\n|CUT|0\r\n\r\n",
                event.len()
            )
        }
        _ => modern(seen),
    })
    .await;
    for _ in 0..50 {
        text(&http).await;
        // The end of the stream comes by itself.
        while http.0.pool.idle_now() == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(server.connections.load(Relaxed), 1);
}

#[tokio::test]
async fn only_a_permanent_redirect_that_leads_somewhere_is_remembered() {
    let (server, http) = Server::start(modern).await;
    text(&http).await;
    let to = |status: &'static str, to: &'static str| {
        move |seen: &Seen| match seen.path.as_str() {
            "/mcp" => answer(status, &format!("Location: {to}\r\n"), ""),
            "/loop" => answer(status, "Location: /loop\r\n", ""),
            path => result(seen, &format!(r#"{{"path":"{path}"}}"#)),
        }
    };
    server.becomes(to("308 Permanent Redirect", "/loop"));
    assert!(http.call(call(NEW)).await.is_err());
    server.becomes(to("307 Temporary Redirect", "/new"));
    assert!(text(&http).await.contains("/new"));
    assert_eq!(**http.0.path.read(), *"/mcp");
    for elsewhere in [
        "//other.example/mcp",
        "http://other.example/mcp",
        "https://127.0.0.1/mcp",
    ] {
        server.becomes(to("308 Permanent Redirect", elsewhere));
        assert!(http.call(call(NEW)).await.is_err(), "{elsewhere}");
    }
    server.becomes(to("308 Permanent Redirect", "/new"));
    assert!(text(&http).await.contains("/new"));
    assert_eq!(**http.0.path.read(), *"/new");
}

#[tokio::test]
async fn what_is_between_backend_and_proxy_is_no_status_for_the_client() {
    let (server, http) = Server::start(modern).await;
    text(&http).await;
    for (status, shown) in [
        ("401 Unauthorized", 200),
        ("403 Forbidden", 200),
        ("302 Found", 200),
        ("500 Internal Server Error", 200),
        ("404 Not Found", 404),
        ("429 Too Many Requests", 429),
    ] {
        for id in [None, Some("null")] {
            server.becomes(move |seen: &Seen| {
                let id = id.unwrap_or(&seen.id).to_owned();
                let seen = Seen {
                    path: String::new(),
                    method: String::new(),
                    id,
                };
                error(&seen, status, -32_001)
            });
            // A doubt of the era asks anew, which is not meant here.
            http.0.eras.set_modern(true);
            assert_eq!(whole(&http, NEW).await.status, shown, "{status}");
        }
    }
}

/// Until the server has seen this method.
async fn seen(server: &Server, method: &str) {
    while server.times(method) == 0 {
        tokio::task::yield_now().await;
    }
}

fn with_session(seen: &Seen) -> String {
    legacy(seen).replacen("\r\n", "\r\nMcp-Session-Id: s1\r\n", 1)
}

#[tokio::test]
async fn a_session_that_is_never_used_is_ended() {
    let (server, http) = Server::start(|seen| match seen.method.as_str() {
        "notifications/initialized" => answer("500 Internal Server Error", "", ""),
        _ => with_session(seen),
    })
    .await;
    assert!(http.call(call(NEW)).await.is_err());
    seen(&server, "DELETE").await;
}

#[tokio::test]
async fn a_session_whose_client_leaves_while_it_is_opened_is_ended() {
    let (server, http) = Server::start(|seen| match seen.method.as_str() {
        // No answer at all.
        "notifications/initialized" => String::new(),
        _ => with_session(seen),
    })
    .await;
    tokio::select! {
        _ = http.call(call(NEW)) => panic!("it was not to be answered"),
        () = seen(&server, "notifications/initialized") => {}
    }
    seen(&server, "DELETE").await;
}

#[tokio::test]
async fn a_response_that_cannot_be_read_ends_the_call_at_once() {
    let (_server, http) = Server::start(|seen| match seen.method.as_str() {
        "tools/call" => format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
             data: {{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{}},\"result\":{{}}}}\n\n",
            seen.id
        ),
        _ => modern(seen),
    })
    .await;
    // The server leaves the stream open.
    let error = http.call(call(NEW)).await.err().unwrap();
    assert!(matches!(error, CallError::BadAnswer { .. }), "{error}");
}

/// It is made and moved for every call.
#[tokio::test]
async fn the_future_of_a_call_is_small() {
    let (_server, http) = Server::start(|_| String::new()).await;
    let size = size_of_val(&http.call(call(ProtocolVersion::V2026_07_28)));
    assert!(size < 3 << 10, "{size} bytes");
}

#[test]
fn a_refusal_of_a_session_is_told_from_one_of_a_request() {
    let refusal = |members: &str| {
        format!(r#"{{"jsonrpc":"2.0",{members}"error":{{"code":-32000,"message":"no session"}}}}"#)
    };
    let is_lost = |body: &str| session::is_lost(StatusCode::BAD_REQUEST, body.as_bytes());
    for id in ["", r#""id":null,"#, r#""id":"server-error","#] {
        assert!(is_lost(&refusal(id)), "{id}");
    }
    for id in [r#""id":7,"#, r#""id":"7","#] {
        assert!(!is_lost(&refusal(id)), "{id}");
    }
    assert!(is_lost("No session") && !is_lost(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#));
    assert!(session::is_lost(StatusCode::NOT_FOUND, b"{}"));
}
