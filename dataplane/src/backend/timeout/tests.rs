use bytes::Bytes;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{
    auth::Auth,
    call::{Answer, ProtocolVersion, WorkerId},
    envelope,
};

const SILENCE: Duration = Duration::from_secs(30);
const TOTAL: Duration = Duration::from_secs(100);

fn call(method: &str) -> Call {
    let body = Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{}}}}"#
    ));
    Call {
        worker: WorkerId(0),
        version: ProtocolVersion::V2026_07_28,
        method: Method::parse(method.as_bytes()),
        message: envelope::scan(&body).unwrap(),
        body,
        target: None,
        param_headers: Vec::new(),
        principal: Auth::anonymous(),
        session: None,
        rounds: Default::default(),
    }
}

/// A backend that says something every `pause`, for ever.
async fn ask(method: &str, pause: Duration) -> Result<Reply, CallError> {
    let service = service_fn(move |_| async move {
        let messages = stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((Ok(Bytes::from_static(b"{}")), ()))
        });
        Ok(Reply::Stream(Box::pin(messages)))
    });
    TimeoutLayer::new("b".to_owned(), SILENCE, TOTAL)
        .layer(service)
        .oneshot(call(method))
        .await
}

async fn count(reply: Reply) -> (usize, Option<CallError>) {
    let Reply::Stream(mut messages) = reply else {
        panic!("not a stream")
    };
    let mut count = 0;
    while let Some(message) = messages.next().await {
        match message {
            Ok(_) => count += 1,
            Err(error) => return (count, Some(error)),
        }
        if count > 1_000 {
            break;
        }
    }
    (count, None)
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_given_up_after_the_silence() {
    let service = service_fn(|_| std::future::pending::<Result<Reply, CallError>>());
    let started = Instant::now();
    let answer = TimeoutLayer::new("b".to_owned(), SILENCE, TOTAL)
        .layer(service)
        .oneshot(call("tools/call"))
        .await;
    assert!(matches!(answer, Err(CallError::Timeout { after, .. }) if after == SILENCE));
    assert_eq!(started.elapsed(), SILENCE);
}

#[tokio::test(start_paused = true)]
async fn messages_end_the_silence_but_not_the_whole() {
    let reply = ask("tools/call", Duration::from_secs(21)).await.unwrap();
    let (messages, error) = count(reply).await;
    assert_eq!(messages, 4);
    assert!(matches!(error, Some(CallError::Deadline { after, .. }) if after == TOTAL));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent_ends_with_an_error() {
    let reply = ask("tools/call", Duration::from_secs(31)).await.unwrap();
    let (messages, error) = count(reply).await;
    assert_eq!(messages, 0);
    assert!(matches!(error, Some(CallError::Timeout { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_may_be_silent() {
    let reply = ask("subscriptions/listen", Duration::from_secs(3_600))
        .await
        .unwrap();
    assert!(count(reply).await.1.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_passes() {
    let service = service_fn(|_| async {
        Ok::<_, CallError>(Reply::Whole(Answer::ok(Bytes::from_static(b"{}"))))
    });
    let layer = TimeoutLayer::new("b".to_owned(), SILENCE, TOTAL);
    let answer = layer.layer(service).oneshot(call("tools/call")).await;
    assert!(matches!(answer, Ok(Reply::Whole(_))));
}
