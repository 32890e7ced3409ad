//! Time on a stream, with a paused clock and no network. What a stream does
//! otherwise is tested over loopback (`tests/stream.rs`).

use fleet_proto::{v1::Hello, validate::Valid};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::*;

struct Node {
    say: mpsc::Sender<Result<NodeMessage, Status>>,
    hear: mpsc::Receiver<Result<ControlMessage, Status>>,
    _shutdown: watch::Sender<bool>,
}

/// A stream to a node that serves the empty revision 0 already.
async fn connected() -> Node {
    let node = accepted();
    let newest = Valid::empty();
    let hello = Hello {
        node_id: "n1".to_owned(),
        lineage: "l".to_owned(),
        root_hash: newest.root_hash().0.to_vec(),
        ..Hello::default()
    };
    node.say(node_message::Message::Hello(hello)).await;
    node
}

fn accepted() -> Node {
    let (say, inbound) = mpsc::channel(1);
    let (outbound, hear) = mpsc::channel(2);
    let (shutdown, stopped) = watch::channel(false);
    let snapshot = Snapshot {
        lineage: "l".into(),
        revision: 0,
        resources: Valid::empty(),
    };
    let publisher = Arc::new(Publisher::new(snapshot));
    let nodes = Arc::new(Registry::new(Vec::new()));
    tokio::spawn(serve(
        ReceiverStream::new(inbound),
        Credential::of_a_test(),
        outbound,
        publisher,
        (Arc::default(), peers::nobody()),
        nodes,
        stopped,
    ));
    Node {
        say,
        hear,
        _shutdown: shutdown,
    }
}

impl Node {
    async fn say(&self, message: node_message::Message) {
        self.say
            .send(Ok(NodeMessage {
                message: Some(message),
            }))
            .await
            .unwrap();
    }

    async fn hear(&mut self) -> Result<control_message::Message, Status> {
        Ok(self.hear.recv().await.expect("ended")?.message.unwrap())
    }

    async fn heartbeat(&mut self) {
        let heard = self.hear().await.unwrap();
        assert!(
            matches!(heard, control_message::Message::Heartbeat(_)),
            "{heard:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_answers_heartbeats_stays_and_one_that_does_not_is_let_go() {
    let mut node = connected().await;
    node.heartbeat().await;
    let start = Instant::now();
    for _ in 0..10 {
        node.heartbeat().await;
        node.say(node_message::Message::Heartbeat(Heartbeat {}))
            .await;
    }
    assert_eq!(start.elapsed(), HEARTBEAT * 10);
    let silent = Instant::now();
    let status = loop {
        match node.hear().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(silent.elapsed() > SILENCE && silent.elapsed() <= SILENCE + HEARTBEAT);
    assert!(node.hear.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_say_hello_is_let_go() {
    let mut node = accepted();
    let status = node.hear().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("hello"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_reads_nothing_holds_up_no_verdict_of_its_own() {
    let mut node = connected().await;
    // Nobody reads: heartbeats fill the channel, and what the node says is still taken.
    for _ in 0..100 {
        tokio::time::advance(HEARTBEAT).await;
        node.say(node_message::Message::Heartbeat(Heartbeat {}))
            .await;
    }
    node.heartbeat().await;
    node.heartbeat().await;
}
