//! The whole way of a call, from the body of the request to the response, over a backend that
//! answers at once; and sessions.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use criterion::Criterion;
use http::{HeaderMap, HeaderName, HeaderValue};
use mcp_dataplane::{
    auth::Auth,
    bench_support,
    call::{Answer, Call, Era, ProtocolVersion, Reply, WorkerId},
    codec::{self, Inbound},
    envelope::scan,
    error::CallError,
    node::Node,
    peer::Peers,
    sealed::{Binding, KeyRing},
    session::Sessions,
    settings::Settings,
    table::Gateway,
    upstream::message,
};
use tokio::runtime::Runtime;
use tower::Service;

use crate::{
    measure::{alone, with},
    messages::{ANSWER, LEGACY, MODERN},
};

/// Does what a transport does besides I/O: the message for the backend, and that for the client.
#[derive(Clone)]
struct NoOp;

impl Service<Call> for NoOp {
    type Response = Reply;
    type Error = CallError;
    type Future = Ready<Result<Reply, CallError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        ready(answer(&call).map(Reply::Whole))
    }
}

fn answer(call: &Call) -> Result<Answer, CallError> {
    let era = call.version.era();
    std::hint::black_box(message::outgoing(call, era, None)?);
    let body = Bytes::from_static(ANSWER.as_bytes());
    let scanned = scan(&body).map_err(|e| CallError::refused(0, e.to_string()))?;
    message::incoming(call, "server", era, None, body, &scanned)
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A node that discovers nothing.
pub(crate) fn node(runtime: &Runtime) -> Arc<Node> {
    let node = Arc::new(Node::new(
        Settings::default(),
        None,
        1,
        Sessions::new(KeyRing::of(&[[7; 32]])),
        Peers::none("bench"),
        runtime.handle().clone(),
    ));
    node.discoveries.close();
    node
}

pub(crate) fn all(criterion: &mut Criterion) {
    calls(criterion);
    sessions(criterion);
}

fn calls(criterion: &mut Criterion) {
    let runtime = runtime();
    let node = node(&runtime);
    let backend = bench_support::backend(&node, "server", NoOp);
    let gateway = bench_support::gateway(&node, vec![backend.clone()]);
    let session = node
        .sessions
        .create(
            &gateway.id,
            &Auth::anonymous().id,
            ProtocolVersion::V2025_11_25,
            br#"{"name":"fleet-bench","version":"1"}"#,
            b"{}",
        )
        .unwrap();
    let session = [
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-session-id", session.as_str()),
    ];
    let modern = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "server__echo"),
    ];
    let cases: [(_, _, &[_]); 2] = [
        ("stack/whole, 2025-11-25", LEGACY, &session),
        ("stack/whole, 2026-07-28", MODERN, &modern),
    ];
    for (name, body, headers) in cases {
        let make = || inbound(&node, &gateway, body, headers);
        let response = runtime.block_on(codec::post(make()));
        assert_eq!(response.status(), 200, "{name}");
        // One `block_on` for each call: it costs some 50 ns.
        with(criterion, name, make, |inbound| {
            runtime.block_on(codec::post(inbound))
        });
    }
    // The layers alone: what a call of the stack costs more than one of its innermost service.
    let call = || call(&gateway);
    with(criterion, "stack/layers and no-op", call, |call| {
        runtime.block_on(backend.clone().call(call)).unwrap()
    });
    with(criterion, "stack/no-op alone", call, |call| {
        runtime.block_on(NoOp.call(call)).unwrap()
    });
    alone(criterion, "stack/block_on alone", || {
        runtime.block_on(ready(()))
    });
}

fn inbound(
    node: &Arc<Node>,
    gateway: &Arc<Gateway>,
    body: &'static str,
    headers: &[(&'static str, &str)],
) -> Inbound {
    let mut map = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ]
    .iter()
    .chain(headers)
    {
        let value = HeaderValue::from_str(value).unwrap();
        map.insert(HeaderName::from_static(name), value);
    }
    Inbound {
        node: node.clone(),
        worker: WorkerId(0),
        gateway: gateway.clone(),
        principal: Auth::anonymous(),
        headers: map,
        body: Bytes::from_static(body.as_bytes()),
        relayed: false,
    }
}

/// A call as it reaches a backend of `gateway`.
pub(crate) fn call(gateway: &Gateway) -> Call {
    let version = ProtocolVersion::V2026_07_28;
    assert_eq!(version.era(), Era::Modern);
    let name = gateway.backends[gateway.backends.len() / 2].name();
    let body = Bytes::from(MODERN.replace("server__", &format!("{name}__")));
    Call {
        worker: WorkerId(0),
        version,
        method: mcp_dataplane::call::Method::ToolsCall,
        message: scan(&body).unwrap(),
        body,
        target: Some(Bytes::from_static(b"\"echo\"")),
        param_headers: Vec::new(),
        principal: Auth::anonymous(),
        session: None,
        rounds: Default::default(),
    }
}

fn sessions(criterion: &mut Criterion) {
    let ring = KeyRing::of(&[[7; 32]]);
    let binding = Binding {
        purpose: "session",
        gateway: "default/default",
        principal: "anonymous",
    };
    let value = "a value of the length of a session's client information, more or less";
    let day = Duration::from_secs(24 * 3600);
    let sealed = ring.seal(value, day, binding).unwrap();
    alone(criterion, "session/seal", || {
        ring.seal(value, day, binding).unwrap()
    });
    alone(criterion, "session/open", || {
        ring.open::<String>(&sealed, binding).unwrap()
    });
    let version = ProtocolVersion::V2025_11_25;
    let create = |on: &Sessions| {
        on.create(
            "default/default",
            "anonymous",
            version,
            br#"{"name":"x","version":"1"}"#,
            b"{}",
        )
        .unwrap()
    };
    let here = Sessions::new(KeyRing::of(&[[7; 32]]));
    let id = create(&here);
    alone(criterion, "session/find one that is known", || {
        here.find(&id, "default/default", "anonymous").unwrap()
    });
    with(
        criterion,
        "session/find one of another node",
        || Sessions::new(KeyRing::of(&[[7; 32]])),
        |there| there.find(&id, "default/default", "anonymous").unwrap(),
    );
}
