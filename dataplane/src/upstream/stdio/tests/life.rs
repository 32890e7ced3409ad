//! Stdio backends with real children: how they start, die and end.

use super::*;
use crate::call::Era;

fn nobody() -> OnNotification {
    Arc::new(|_, _| {})
}

fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat[stat.rfind(')').unwrap()..].starts_with(") Z"))
}

impl Fixture {
    fn pid(&self) -> u32 {
        match self.stdio.state() {
            State::Running { pid: Some(pid) } => pid,
            state => panic!("{state:?}"),
        }
    }

    async fn backoff_over(&self) {
        until("the end of the backoff", || match self.stdio.state() {
            State::Backoff { retry_in, .. } => retry_in.is_zero(),
            _ => false,
        })
        .await;
    }
}

#[tokio::test]
async fn a_legacy_server_is_probed_and_then_initialized() {
    let fixture = Fixture::new("legacy");
    assert_eq!(fixture.stdio.state(), State::Idle);
    let hello = fixture.stdio.hello().await.unwrap();
    assert_eq!(
        (hello.era, &*hello.protocol_version),
        (Era::Legacy, "2025-11-25")
    );
    assert_eq!(
        hello.result,
        r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#
    );
    fixture.call("echo", "{}").await.unwrap();
    let expected = [
        "server/discover",
        "initialize",
        "notifications/initialized",
        "tools/call",
    ];
    assert_eq!(fixture.methods(), expected);
}

#[tokio::test]
async fn a_modern_server_is_not_initialized() {
    let fixture = Fixture::new("modern");
    let hello = fixture.stdio.hello().await.unwrap();
    assert_eq!(
        (hello.era, &*hello.protocol_version),
        (Era::Modern, "2026-07-28")
    );
    assert_eq!(
        hello.result,
        r#"{"supportedVersions":["2026-07-28"],"capabilities":{}}"#
    );
    fixture.call("echo", "{}").await.unwrap();
    assert_eq!(fixture.methods(), ["server/discover", "tools/call"]);
}

#[tokio::test]
async fn a_server_of_another_modern_version_is_met_in_a_common_legacy_one() {
    let hello = Fixture::new("other").stdio.hello().await.unwrap();
    assert_eq!(
        (hello.era, &*hello.protocol_version),
        (Era::Legacy, "2025-06-18")
    );
}

#[tokio::test]
async fn a_server_without_a_common_version_is_refused() {
    let error = Fixture::new("future").stdio.hello().await.unwrap_err();
    assert!(matches!(&error, DuplexError::Version { supported } if supported == "2027-01-01"));
}

#[tokio::test]
async fn a_server_that_ignores_the_probe_is_legacy() {
    let hello = Fixture::new("silent").stdio.hello().await.unwrap();
    assert_eq!(hello.era, Era::Legacy);
}

#[tokio::test]
async fn a_server_that_dies_of_the_probe_is_started_again_without() {
    let fixture = Fixture::new("fragile");
    assert_eq!(fixture.stdio.hello().await.unwrap().era, Era::Legacy);
    assert_eq!(fixture.methods()[..2], ["server/discover", "initialize"]);
}

#[tokio::test]
async fn a_refused_handshake_says_so() {
    let error = Fixture::new("refuses").stdio.hello().await.unwrap_err();
    assert!(error.to_string().contains("-32603: no licence"), "{error}");
}

#[tokio::test]
async fn callers_that_come_together_share_one_start() {
    let fixture = Fixture::new("legacy");
    let (first, second) = tokio::join!(fixture.call("echo", "{}"), fixture.stdio.hello());
    first.unwrap();
    second.unwrap();
    assert_eq!(
        fixture
            .methods()
            .iter()
            .filter(|method| *method == "initialize")
            .count(),
        1
    );
}

#[tokio::test]
async fn a_child_that_dies_fails_its_calls_and_comes_back_unprobed() {
    let fixture = Fixture::new("legacy");
    let hanging = fixture
        .stdio
        .request(tool_call("1", "hang", "{}"))
        .await
        .unwrap();
    for error in [fixture.call("die", "{}").await, hanging.response().await] {
        let error = error.unwrap_err();
        assert!(
            matches!(&error, DuplexError::Exited { status, .. } if status == "killed by signal 9")
        );
        assert!(
            error.detail().ends_with("it said last: I am dying"),
            "{}",
            error.detail()
        );
    }
    fixture.backoff_over().await;
    fixture.call("echo", "{}").await.unwrap();
    let methods = fixture.methods();
    assert_eq!(
        methods[5..],
        ["initialize", "notifications/initialized", "tools/call"]
    );
}

#[tokio::test]
async fn during_a_backoff_calls_fail_at_once() {
    let fixture = Fixture::new("legacy");
    let mut failures = 0;
    // The doubled backoffs make it certain that a call falls into one.
    let error = loop {
        match fixture.call("exit", "{}").await.unwrap_err() {
            error @ DuplexError::Backoff { .. } => break error,
            error => assert_eq!(error.to_string(), "the server process ended: exit code 3"),
        }
        failures += 1;
    };
    assert!(
        error
            .to_string()
            .ends_with("ms: the server process ended: exit code 3"),
        "{error}"
    );
    assert!(failures > 0);
}

#[tokio::test]
async fn failures_in_a_row_are_counted() {
    let stdio = backend(config("/nonexistent"), Handle::current(), nobody());
    for expected in 1..4 {
        until(
            "the end of the backoff",
            || !matches!(stdio.state(), State::Backoff { retry_in, .. } if !retry_in.is_zero()),
        )
        .await;
        assert!(matches!(
            stdio.hello().await,
            Err(DuplexError::Spawn { .. })
        ));
        assert!(matches!(stdio.state(), State::Backoff { failures, .. } if failures == expected));
    }
}

#[tokio::test]
async fn a_missing_program_is_reported_with_where_it_was_looked_for() {
    let mut config = config("no-such-program");
    config
        .env
        .insert("PATH".to_owned(), "/nowhere:/bin".to_owned());
    config.extra_path.push("/extra".into());
    let stdio = backend(config, Handle::current(), nobody());
    assert_eq!(
        stdio.hello().await.unwrap_err().to_string(),
        "cannot start `no-such-program`: no such program in PATH (/nowhere:/bin:/extra); install it, or give its full path"
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_run_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("plain"), "").unwrap();
    let config = StdioConfig {
        cwd: Some(directory.path().into()),
        ..config("./plain")
    };
    let error = backend(config, Handle::current(), nobody())
        .hello()
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("plain: Permission denied"),
        "{error}"
    );
}

#[tokio::test]
async fn shutdown_ends_the_child_and_fails_its_calls() {
    let fixture = Fixture::new("legacy");
    let hanging = fixture
        .stdio
        .request(tool_call("1", "hang", "{}"))
        .await
        .unwrap();
    let pid = fixture.pid();
    fixture.stdio.shutdown().await;
    assert!(!runs(pid));
    assert_eq!(fixture.stdio.state(), State::Closed);
    assert!(matches!(hanging.response().await, Err(DuplexError::Closed)));
    assert!(matches!(
        fixture.call("echo", "{}").await,
        Err(DuplexError::Closed)
    ));
}

#[tokio::test]
async fn a_child_that_closes_its_streams_is_ended() {
    let fixture = Fixture::new("legacy");
    fixture.stdio.hello().await.unwrap();
    let pid = fixture.pid();
    let error = fixture.call("deaf", "{}").await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("closed its standard input or output"),
        "{error}"
    );
    assert!(!runs(pid));
}

#[tokio::test]
async fn the_last_user_gone_ends_the_child() {
    let fixture = Fixture::new("legacy");
    let mut call = fixture
        .stdio
        .request(tool_call("1", "ask", "{}"))
        .await
        .unwrap();
    let (
        pid,
        Fixture {
            stdio,
            directory: _directory,
            ..
        },
    ) = (fixture.pid(), fixture);
    drop(stdio);
    // The call in flight is still a user.
    assert!(matches!(call.next().await, Some(Ok(Incoming::Response(_)))));
    drop(call);
    until("the end of the child", || !runs(pid)).await;
}

#[test]
fn a_runtime_that_ends_leaves_nobody_waiting() {
    let background = tokio::runtime::Runtime::new().unwrap();
    let front = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let fixture = background.block_on(async { Fixture::new("legacy") });
    front.block_on(async {
        let hanging = fixture
            .stdio
            .request(tool_call("1", "hang", "{}"))
            .await
            .unwrap();
        background.shutdown_background();
        assert!(matches!(hanging.response().await, Err(DuplexError::Closed)));
        assert!(matches!(
            fixture.call("echo", "{}").await,
            Err(DuplexError::Closed)
        ));
    });
}
