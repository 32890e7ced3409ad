//! What travels through stays as it is, byte for byte.

use std::sync::Arc;

use anyhow::{Result, ensure};
use fleet_tests::{
    backend::{Backend, Script, answer, server::Server},
    client::Connection,
    fleet::Fleet,
};
use futures_util::FutureExt;

/// A server whose tool answers with this text as its whole result, whatever is asked.
fn answering(result: &'static str) -> Script {
    let usual = Server::echo("odd").legacy();
    Arc::new(move |seen| {
        if seen.method() != "tools/call" {
            return usual(seen);
        }
        let body = format!(
            r#"{{ "result":{result}, "jsonrpc" :"2.0","id":{}}}"#,
            seen.message["id"]
        );
        async move { answer(200, "application/json", body) }.boxed()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_results_keep_numbers_escapes_order_and_spaces() -> Result<()> {
    let odd = r#"{"z":1.10,"a":123456789012345678901234567890,"e":1E+300,"m":-0.0, "s":"\u0041\/\ud83e\udd80","\u006b":null,"unknown":[ 1 ,2.50 ]}"#;
    let backend = Backend::start(answering(odd)).await?;
    let url = backend.url();
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: odd\nhttp: {{ url: '{url}' }}\n"
    ))
    .await?;
    fleet.offers(&["odd__echo"]).await?;
    let session = fleet.client().await?.headers().to_vec();
    let call = format!(
        r#"{{ "params":{{"arguments":{odd} ,"name": "odd__echo","extra":1.10}},"id":"\u0041-7","method":"tools/call","jsonrpc":"2.0","more":{odd}}}"#
    );
    let answer = Connection::open(&fleet.url)
        .await?
        .post(&session, call)
        .await?;
    let received = backend
        .seen_of("tools/call")
        .pop()
        .expect("the call has been answered")
        .body;
    let received = String::from_utf8(received.to_vec())?;
    ensure!(
        received.contains(&format!(r#""arguments":{odd} ,"#)),
        "received: {received}"
    );
    ensure!(received.contains(r#""extra":1.10"#), "received: {received}");
    ensure!(
        received.contains(&format!(r#""more":{odd}"#)),
        "received: {received}"
    );
    ensure!(
        received.contains(r#""name": "echo""#),
        "received: {received}"
    );
    let text = String::from_utf8(answer.body.to_vec())?;
    ensure!(text.contains(odd), "answered: {text}");
    ensure!(text.contains(r#""id":"\u0041-7""#), "answered: {text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_backend_passes_with_code_message_and_data() -> Result<()> {
    let error = r#"{"code":-31999,"message":"no \u2603 today","data":{"n":1.10}}"#;
    let usual = Server::echo("odd").legacy();
    let script: Script = Arc::new(move |seen| {
        if seen.method() != "tools/call" {
            return usual(seen);
        }
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#,
            seen.message["id"]
        );
        async move { answer(200, "application/json", body) }.boxed()
    });
    let backend = Backend::start(script).await?;
    let url = backend.url();
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: odd\nhttp: {{ url: '{url}' }}\n"
    ))
    .await?;
    fleet.offers(&["odd__echo"]).await?;
    let session = fleet.client().await?.headers().to_vec();
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"odd__echo"}}"#;
    let answer = Connection::open(&fleet.url)
        .await?
        .post(&session, call)
        .await?;
    let text = String::from_utf8(answer.body.to_vec())?;
    ensure!(text.contains(error), "answered: {text}");
    Ok(())
}
