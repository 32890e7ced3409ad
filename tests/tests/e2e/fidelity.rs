//! What a backend writes is what its client gets, byte for byte, and the other way round: for
//! clients and backends of both eras, over every transport.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::raw::{Era, Raw, Script, Transport},
    client::Client,
    fleet::{Fleet, LEGACY},
};
use futures_util::FutureExt;
use serde_json::json;

/// How each backend is reached, and what it speaks.
const BACKENDS: [(&str, Transport, Era); 9] = [
    ("json", Transport::Json, Era::Legacy),
    ("json2", Transport::Json, Era::Modern),
    ("events", Transport::Events, Era::Legacy),
    ("events2", Transport::Events, Era::Modern),
    ("sse", Transport::Sse, Era::Legacy),
    ("ws", Transport::WebSocket, Era::Legacy),
    ("ws2", Transport::WebSocket, Era::Modern),
    ("stdio", Transport::Stdio, Era::Legacy),
    ("stdio2", Transport::Stdio, Era::Modern),
];

const RESULTS: [&str; 7] = [
    "{}",
    r#"{ "content":[],"n":[1.10,1e400,-0,-0.0,12345678901234567890,-123456789012345678901234567890,1E+2,0.1e-7]}"#,
    r#"{"unknown":null,"content":[{"type":"acme/hologram","data":{"x":1.10},"annotations":{"acme":[ ]}},{"text":"\u0041\/\ud83e\udd80\t","type":"text","_meta":{"acme.example/k":-0}}],"structuredContent":{"z":1.0,"a":2.50},"isError":false,"_meta":{"acme.example/trace":"1","z":{} }}"#,
    // What JSON allows in a text, if not every parser of it.
    "{\"content\":[{\"type\":\"text\",\"text\":\"é 漢字 🦀 \u{2028}\u{feff}\u{7f} \\ud800 \\u0000\"}]}",
    r#"{"content":[],"id":7,"result":{"id":"x","resultType":1},"error":null,"method":"ping","params":{"name":"n"},"jsonrpc":"1.0"}"#,
    r#"{"content":[], "resultType" : "complete"}"#,
    r#"{"resultType":"acme/other","content":[]}"#,
];

const ERRORS: [&str; 4] = [
    r#"{"code":-31999,"message":"no \u2603 today","data":{"n":[1.10,1e400,-0,12345678901234567890],"_meta":{} },"acme":1.0}"#,
    r#"{ "message":"","data":null,"code":-32602}"#,
    r#"{"data":"é","code":-32603,"message":"\/"}"#,
    r#"{"code":7,"message":"of nobody's range"}"#,
];

/// Some MB, of characters of every length.
fn huge() -> String {
    let text = r#"a\u0041é漢🦀\n"#.repeat(100_000);
    format!(r#"{{"content":[{{"type":"text","text":"{text}"}}],"n":1.10}}"#)
}

/// Says something else first where it is asked for progress, then answers with its arguments.
fn mirror(transport: Transport, era: Era) -> Script {
    Arc::new(move |asked, out| {
        async move {
            if !asked.token.is_empty() && transport != Transport::Json {
                out.say("not JSON").await;
                out.say(r#"{"jsonrpc":"2.0","id":"nobody's","result":{}}"#)
                    .await;
                for note in notes(&asked.token) {
                    out.say(note).await;
                }
            }
            let answer = if asked.method == "resources/read" {
                whole(transport, &asked.id, "error", &not_found(era))
            } else {
                whole(transport, &asked.id, &asked.name, &asked.arguments)
            };
            out.say(answer).await;
        }
        .boxed()
    })
}

/// A log message, something unknown, and progress.
fn notes(token: &str) -> [String; 3] {
    [
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":1.10,"level":"info","é":-0}}"#.to_owned(),
        r#"{"params":{"n":1e400}, "method":"notifications/acme","jsonrpc":"2.0"}"#.to_owned(),
        format!(r#"{{"method":"notifications/progress","params":{{"progress":1.10,"progressToken":{token},"acme":[ 1E2 ]}},"jsonrpc":"2.0"}}"#),
    ]
}

/// The error of a resource that is not there, as servers of this era write it.
fn not_found(era: Era) -> String {
    let code = if era == Era::Modern { -32602 } else { -32002 };
    format!(r#"{{"data":{{"uri":"\u0072aw://x","n":1.10}}, "code" : {code},"message":"not here"}}"#)
}

/// A response with what no response has, in an order of its own.
fn whole(transport: Transport, id: &str, kind: &str, text: &str) -> String {
    let space = if transport == Transport::Stdio {
        " "
    } else {
        "\n"
    };
    format!(
        r#"{{ "{kind}":{text},{space}"acme" : [1.10,null],"jsonrpc" :"2.0",{space}"id":{id} }}"#
    )
}

/// A call whose answer is to be what its arguments are.
struct Case<'a> {
    backend: (&'a str, Transport, Era),
    client: Era,
    kind: &'a str,
    text: &'a str,
    progress: bool,
}

impl Case<'_> {
    /// The messages that the client is to get.
    fn expected(&self, id: u64) -> Vec<String> {
        let (_, transport, era) = self.backend;
        let mut text = self.text.to_owned();
        // The only thing that is added: a result of the new era has a type.
        let is_typed = text.contains(r#""resultType" :"#) || text.starts_with(r#"{"resultType""#);
        if (self.client, era) == (Era::Modern, Era::Legacy) && self.kind == "result" && !is_typed {
            let more = if text == "{}" { "" } else { "," };
            text.insert_str(1, &format!(r#""resultType":"complete"{more}"#));
        }
        let answer = whole(transport, &id.to_string(), self.kind, &text);
        let [log, unknown, progress] = notes(r#""own""#);
        let mut all = match transport {
            _ if !self.progress => Vec::new(),
            Transport::Json => Vec::new(),
            // A client of 2026-07-28 has to ask for logs.
            Transport::Events if self.client == Era::Modern => vec![unknown, progress],
            Transport::Events => vec![log, unknown, progress],
            _ if self.client == Era::Modern => vec![progress],
            // What does not name a call belongs to none, but for logs while there is only one.
            _ => vec![log, progress],
        };
        all.push(answer);
        all
    }

    async fn check(&self, client: &mut Client) -> Result<()> {
        let tool = format!("{}__{}", self.backend.0, self.kind);
        let expected = self.expected(client.next_id());
        let token = self.progress.then(|| json!("own"));
        let answer = client.call_with(&tool, self.text, token).await?;
        let got = answer.texts()?;
        ensure!(got.len() == expected.len(), "{answer:?}");
        for (got, expected) in got.iter().zip(&expected) {
            let same = got.bytes().zip(expected.bytes());
            let at = same.take_while(|(one, other)| one == other).count();
            ensure!(
                got == expected,
                "from byte {at} on: {} instead of {}",
                excerpt(got, at),
                excerpt(expected, at)
            );
        }
        // Nothing is a stream that need not be one.
        ensure!(
            answer.is_stream() == (expected.len() > 1),
            "{:?}",
            answer.headers
        );
        Ok(())
    }
}

fn excerpt(text: &str, from: usize) -> String {
    let end = text.len().min(from + 200);
    String::from_utf8_lossy(&text.as_bytes()[from..end]).into_owned()
}

/// A fleet with one backend of each kind, and a client of each era.
async fn fleet() -> Result<(Fleet, Vec<Raw>, [(Era, Client); 2])> {
    let (mut yaml, mut backends) = (String::new(), Vec::new());
    for (name, transport, era) in BACKENDS {
        let tools = ["result", "error"];
        let backend = Raw::start(transport, era, &tools, mirror(transport, era)).await?;
        yaml += &backend.document(name, "");
        backends.push(backend);
    }
    let fleet = Fleet::start(&yaml).await?;
    let tools = BACKENDS.map(|(name, ..)| format!("{name}__result"));
    fleet.offers(&tools.each_ref().map(String::as_str)).await?;
    let clients = [
        (Era::Legacy, Client::legacy(&fleet.url, LEGACY).await?),
        (Era::Modern, Client::modern(&fleet.url).await?),
    ];
    Ok((fleet, backends, clients))
}

#[tokio::test(flavor = "multi_thread")]
async fn results_and_errors_are_the_same_bytes_at_clients_and_backends_of_both_eras() -> Result<()>
{
    let (_fleet, _backends, mut clients) = fleet().await?;
    let results = RESULTS.map(|text| ("result", text));
    let errors = ERRORS.map(|text| ("error", text));
    for (era, client) in &mut clients {
        for backend in BACKENDS {
            for (kind, text) in results.into_iter().chain(errors) {
                for progress in [false, true] {
                    let client_era = *era;
                    let case = Case {
                        backend,
                        client: client_era,
                        kind,
                        text,
                        progress,
                    };
                    let checked = case.check(client).await;
                    checked.with_context(|| {
                        format!(
                            "{client_era:?} client, {}, {text}, progress: {progress}",
                            backend.0
                        )
                    })?;
                }
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_some_mb_are_the_same_bytes() -> Result<()> {
    let (_fleet, _backends, mut clients) = fleet().await?;
    let huge = huge();
    for (era, client) in &mut clients {
        for backend in BACKENDS {
            let client_era = *era;
            let case = Case {
                backend,
                client: client_era,
                kind: "result",
                text: &huge,
                progress: true,
            };
            let checked = case.check(client).await;
            checked.with_context(|| format!("{client_era:?} client, {}", backend.0))?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_of_a_missing_resource_alone_is_that_of_the_clients_era() -> Result<()> {
    let (_fleet, _backends, mut clients) = fleet().await?;
    for (era, client) in &mut clients {
        for (name, transport, backend_era) in BACKENDS {
            let id = client.next_id().to_string();
            let params = json!({"uri": format!("raw://{transport:?}/{backend_era:?}")});
            let answer = client.post("resources/read", Some(params), None).await?;
            let expected = whole(transport, &id, "error", &not_found(*era));
            let got = answer.texts()?;
            ensure!(got == [expected], "{era:?} client, {name}: {got:?}");
        }
    }
    // A tool may say the same.
    let error = r#"{"message":"gone","code":-32002}"#;
    for (era, client) in &mut clients {
        let id = client.next_id().to_string();
        let answer = client.call_with("json__error", error, None).await?;
        let code = if *era == Era::Modern {
            "-32602"
        } else {
            "-32002"
        };
        let expected = error.replace("-32002", code);
        let expected = whole(Transport::Json, &id, "error", &expected);
        ensure!(answer.texts()? == [expected], "{era:?} client: {answer:?}");
    }
    Ok(())
}
