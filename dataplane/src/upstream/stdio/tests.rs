//! Stdio backends with real children: `tests/server.py`. Here: what becomes of messages.

mod life;

use std::{
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{StdioConfig, backend};
use crate::{
    envelope,
    settings::Guard,
    upstream::{
        duplex::{Duplex, DuplexError, Incoming, OnNotification, Replies, Request, State},
        message::logs::Logs,
    },
};

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(30);

/// A backend, the file in which its server notes what it gets, and what came to no call.
struct Fixture {
    stdio: Duplex,
    directory: tempfile::TempDir,
    noted: Arc<Mutex<Vec<String>>>,
}

impl Fixture {
    fn new(mode: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("server.py");
        fs::write(&script, include_str!("tests/server.py")).unwrap();
        let log = directory.path().join("log");
        let args = [script, mode.into(), log].map(|path| path.display().to_string());
        let config = StdioConfig {
            args: args.into(),
            ..config("python3")
        };
        let noted = Arc::<Mutex<Vec<String>>>::default();
        let notes = noted.clone();
        let on_notification: OnNotification =
            Arc::new(move |method, _| notes.lock().unwrap().push(method.to_owned()));
        Self {
            stdio: backend(config, Handle::current(), on_notification),
            directory,
            noted,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The methods the server got, in order.
    fn methods(&self) -> Vec<String> {
        let methods = self.log();
        let methods = methods.lines().map(|line| {
            let message = envelope::scan(line.as_bytes()).unwrap();
            message.method.map_or("", |at| &line[at.range()]).to_owned()
        });
        methods.collect()
    }

    async fn call(&self, tool: &str, arguments: &str) -> Result<String, DuplexError> {
        self.stdio
            .request(tool_call("1", tool, arguments))
            .await?
            .response()
            .await
    }
}

fn config(command: &str) -> StdioConfig {
    StdioConfig {
        name: "test".to_owned(),
        command: command.to_owned(),
        args: Vec::new(),
        env: Default::default(),
        cwd: None,
        guard: Guard::Off,
        extra_path: Vec::new(),
        hidden: Vec::new(),
    }
}

fn request(body: impl Into<Bytes>) -> Request {
    let body = body.into();
    let message = envelope::scan(&body).unwrap();
    let (id, token) = (message.id.unwrap(), message.progress_token);
    Request {
        listens: false,
        logs: Logs::None,
        id: id.range(),
        progress_token: token.map(envelope::Span::range),
        client: None,
        may_ask: true,
        body,
    }
}

fn tool_call(id: &str, tool: &str, arguments: &str) -> Request {
    request(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    ))
}

impl Replies {
    /// The response, past all notifications.
    async fn response(mut self) -> Result<String, DuplexError> {
        loop {
            match self.next().await.expect("a response")? {
                Incoming::Notification(_) => {}
                Incoming::Response(text) => return Ok(String::from_utf8(text.into()).unwrap()),
            }
        }
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn ids_come_back_byte_for_byte() {
    let fixture = Fixture::new("legacy");
    for id in [
        r#""a\u0041\"\\\/é""#,
        "123456789012345678901234567890",
        "-7",
        r#""1""#,
    ] {
        let replies = fixture
            .stdio
            .request(tool_call(id, "echo", "{}"))
            .await
            .unwrap();
        let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"got":{{}}}}}}"#);
        assert_eq!(replies.response().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_request_over_several_lines_arrives_as_one() {
    let fixture = Fixture::new("legacy");
    let pretty = request(
        "{\r\n  \"params\": {\"name\": \"echo\", \"arguments\": {\"n\": \"a\\nb\"}},\n  \"id\":\n\"x\",\n  \"method\": \"tools/call\",\n \"jsonrpc\": \"2.0\"\n}",
    );
    let response = fixture
        .stdio
        .request(pretty)
        .await
        .unwrap()
        .response()
        .await
        .unwrap();
    assert_eq!(
        response,
        r#"{"jsonrpc":"2.0","id":"x","result":{"got":{"n":"a\nb"}}}"#
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_calls_with_large_arguments_and_larger_results_finish() {
    let fixture = Fixture::new("modern");
    let arguments = format!(r#"{{"text":"{}","reply":1048576}}"#, "a".repeat(300 << 10));
    let calls = (0..4).map(|n| {
        let (stdio, call) = (
            fixture.stdio.clone(),
            tool_call(&n.to_string(), "size", &arguments),
        );
        tokio::spawn(async move { stdio.request(call).await.unwrap().response().await.unwrap() })
    });
    for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let response = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap();
        let start = format!(r#"{{"jsonrpc":"2.0","id":{n},"result":{{"got":307200,"text":"rrr"#);
        assert!(response.starts_with(&start), "{}", &response[..80]);
        assert_eq!(response.len(), start.len() - 3 + (1 << 20) + 3);
    }
}

#[tokio::test]
async fn a_response_with_a_repeated_key_fails_its_call_only() {
    let fixture = Fixture::new("legacy");
    let error = fixture.call("twice", "{}").await.unwrap_err();
    assert!(matches!(error, DuplexError::Garbage { .. }), "{error}");
    fixture.call("echo", "{}").await.unwrap();
}

#[tokio::test]
async fn lines_that_are_no_messages_are_skipped() {
    let fixture = Fixture::new("legacy");
    fixture.call("garbage", "{}").await.unwrap();
    assert_eq!(
        *fixture.noted.lock().unwrap(),
        ["notifications/tools/list_changed"]
    );
}

#[tokio::test]
async fn progress_comes_before_the_response_and_with_the_callers_token() {
    let fixture = Fixture::new("legacy");
    let call = |token: &str| {
        request(format!(
            r#"{{"id":1,"jsonrpc":"2.0","params":{{"_meta":{{"progressToken":{token}}},"name":"progress","arguments":{{"steps":2}}}},"method":"tools/call"}}"#
        ))
    };
    // The same token twice: the server must see two.
    let mut first = fixture.stdio.request(call(r#""t\u0031""#)).await.unwrap();
    let mut second = fixture.stdio.request(call("1")).await.unwrap();
    for (replies, token) in [(&mut first, r#""t\u0031""#), (&mut second, "1")] {
        for step in 0..2 {
            let Some(Ok(Incoming::Notification(text))) = replies.next().await else {
                panic!()
            };
            let expected = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{step}}}}}"#
            );
            assert_eq!(text, expected);
        }
        assert!(matches!(
            replies.next().await,
            Some(Ok(Incoming::Response(_)))
        ));
        assert!(replies.next().await.is_none());
    }
    assert!(fixture.noted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_caller_that_does_not_read_stalls_nobody_and_still_gets_its_response() {
    let fixture = Fixture::new("legacy");
    let slow = request(
        r#"{"jsonrpc":"2.0","id":"s","method":"tools/call","params":{"_meta":{"progressToken":0},"name":"progress","arguments":{"steps":5000}}}"#,
    );
    let mut slow = fixture.stdio.request(slow).await.unwrap();
    fixture.call("echo", "{}").await.unwrap();
    let mut notifications = 0;
    while let Incoming::Notification(_) = slow.next().await.unwrap().unwrap() {
        notifications += 1;
    }
    assert_eq!(notifications, 256);
}

#[tokio::test]
async fn dropping_the_replies_cancels_the_call() {
    let fixture = Fixture::new("legacy");
    let hanging = fixture
        .stdio
        .request(tool_call("77", "hang", "{}"))
        .await
        .unwrap();
    until("the call", || {
        fixture
            .methods()
            .iter()
            .any(|method| method == "tools/call")
    })
    .await;
    drop(hanging);
    fixture.call("echo", "{}").await.unwrap();
    let log = fixture.log();
    let sent: Vec<_> = log.lines().skip(3).collect();
    let message = envelope::scan(sent[0].as_bytes()).unwrap();
    let id = &sent[0][message.id.unwrap().range()];
    assert!(sent[1].contains("notifications/cancelled"), "{sent:?}");
    assert!(
        sent[1].contains(&format!(r#""requestId":{id},"#)),
        "{sent:?}"
    );
}

#[tokio::test]
async fn answered_calls_are_not_cancelled() {
    let fixture = Fixture::new("legacy");
    fixture.call("echo", "{}").await.unwrap();
    fixture.call("echo", "{}").await.unwrap();
    assert!(!fixture.log().contains("notifications/cancelled"));
}

#[tokio::test]
async fn requests_of_a_legacy_server_are_answered() {
    let fixture = Fixture::new("legacy");
    let response = fixture.call("ask", "{}").await.unwrap();
    assert_eq!(
        response,
        r#"{"jsonrpc":"2.0","id":1,"result":{"ping":{},"sampling/createMessage":{"code":-32601,"message":"the client has not declared this capability"}}}"#
    );
}

#[tokio::test]
async fn notifications_reach_a_running_child_only() {
    let fixture = Fixture::new("legacy");
    let message = Bytes::from("{\"jsonrpc\":\"2.0\",\n\"method\":\"notifications/x\"}");
    fixture.stdio.notify(message.clone()).await.unwrap();
    assert_eq!(fixture.stdio.state(), State::Idle);
    fixture.call("echo", "{}").await.unwrap();
    fixture.stdio.notify(message).await.unwrap();
    fixture.call("echo", "{}").await.unwrap();
    assert_eq!(fixture.methods()[4], "notifications/x");
}
