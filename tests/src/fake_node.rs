//! A data plane's end of the sync stream, by hand: it serves nothing, and accepts or refuses each
//! revision as the test says.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use fleet_proto::v1::{
    Ack, Begin, Commit, Heartbeat, Hello, Nack, NodeMessage, Problem,
    control_message::Message as FromControl, fleet_sync_client::FleetSyncClient,
    node_message::Message as FromNode,
};
use futures_util::stream;
use tokio::{sync::mpsc, task::JoinHandle};
use tonic::{Request, Streaming, transport::Channel};

/// Says why a revision is refused; none: it is accepted.
pub type Verdict = Arc<dyn Fn(u64) -> Option<String> + Send + Sync>;

/// A connected node. It leaves when dropped.
pub struct FakeNode {
    task: JoinHandle<()>,
}

impl FakeNode {
    /// Connects and answers every revision.
    ///
    /// # Errors
    /// The control plane does not let it in.
    pub async fn connect(url: &str, token: &str, node_id: &str, verdict: Verdict) -> Result<Self> {
        let channel = Channel::from_shared(url.to_owned())?.connect().await?;
        let (sender, mut queue) = mpsc::channel(16);
        let hello = Hello {
            node_id: node_id.to_owned(),
            boot_id: "first".to_owned(),
            version: "0.0.0".to_owned(),
            ..Hello::default()
        };
        sender.send(message(FromNode::Hello(hello))).await?;
        let outbound = stream::poll_fn(move |context| queue.poll_recv(context));
        let mut request = Request::new(outbound);
        let bearer = format!("Bearer {token}").parse()?;
        request.metadata_mut().insert("authorization", bearer);
        let inbound = FleetSyncClient::new(channel).sync(request).await?;
        let inbound = inbound.into_inner();
        let task = tokio::spawn(async move {
            if let Err(error) = answer(inbound, sender, verdict).await {
                eprintln!("the fake node leaves: {error:#}");
            }
        });
        Ok(Self { task })
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    mut inbound: Streaming<fleet_proto::v1::ControlMessage>,
    sender: mpsc::Sender<NodeMessage>,
    verdict: Verdict,
) -> Result<()> {
    let mut begun: Option<Begin> = None;
    while let Some(received) = inbound.message().await? {
        match received.message.context("an empty message")? {
            FromControl::Begin(begin) => begun = Some(begin),
            FromControl::Commit(commit) => {
                let begin = begun.take().context("a commit without a begin")?;
                let reply = judge(&begin, commit, &verdict)?;
                sender.send(message(reply)).await?;
            }
            FromControl::Heartbeat(_) => {
                let beat = FromNode::Heartbeat(Heartbeat {});
                sender.send(message(beat)).await?;
            }
            FromControl::GoAway(away) => bail!("it is sent away: {away:?}"),
            _ => {}
        }
    }
    Ok(())
}

fn judge(begin: &Begin, commit: Commit, verdict: &Verdict) -> Result<FromNode> {
    let target = begin.target.as_ref().context("a begin without a target")?;
    Ok(match verdict(target.revision) {
        Some(why) => FromNode::Nack(Nack {
            nonce: begin.nonce,
            errors: vec![Problem {
                message: why,
                ..Problem::default()
            }],
        }),
        None => FromNode::Ack(Ack {
            nonce: begin.nonce,
            revision: target.revision,
            root_hash: commit.root_hash,
            ..Ack::default()
        }),
    })
}

fn message(message: FromNode) -> NodeMessage {
    NodeMessage {
        message: Some(message),
    }
}
