//! What a node serves, asked of the node: after a restart of the control plane its root
//! hash may tell nothing here, and a delta is made by the hashes of its resources.
//!
//! Where that comes to nothing, the node gets the whole set.

use std::{mem, pin::pin, sync::Arc, time::Duration};

use fleet_proto::{
    delta::known::{Collect, Unusable},
    hash::Hash,
    v1::{KnownHashes, RequestHashes, control_message},
};
use tokio::time::{Instant, timeout_at};

use super::{End, Inbound, Stream};
use crate::publish::Base;

/// How long a node may take to tell.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far the question is.
pub(super) enum Asked {
    /// There is no need, or the node does not understand it.
    No,
    /// It is to be asked before a set is sent: what it serves is not known here.
    Wanted(Hash),
    /// The answer is arriving.
    Arriving(Collect),
    /// It was asked; what comes now comes too late.
    Over,
}

impl<I: Inbound> Stream<I> {
    /// Asks, where that is wanted, and waits for the answer.
    pub(super) async fn ask(&mut self, root: Hash) -> Result<(), End> {
        self.asked = Asked::Over;
        let mut turn = pin!(self.publisher.asking().acquire_owned());
        let _turn = loop {
            tokio::select! {
                turn = &mut turn => break turn,
                waited = self.wait(false) => { waited?; }
            }
        };
        // Another node may have told meanwhile.
        self.base = self.publisher.known(root);
        if self.base.is_some() {
            return Ok(());
        }
        self.asked = Asked::Arriving(Collect::new(root));
        let question = control_message::Message::RequestHashes(RequestHashes {});
        self.send(question).await?;
        let until = Instant::now() + PATIENCE;
        while matches!(self.asked, Asked::Arriving(_)) {
            let Ok(waited) = timeout_at(until, self.wait(false)).await else {
                self.in_vain(&format!("no answer came within {PATIENCE:?}"));
                self.asked = Asked::Over;
                break;
            };
            waited?;
        }
        Ok(())
    }

    /// The node has told a part of what it serves.
    pub(super) fn told(&mut self, part: KnownHashes) -> Result<(), End> {
        match mem::replace(&mut self.asked, Asked::Over) {
            Asked::Arriving(mut collect) => match collect.add(part) {
                Ok(false) => self.asked = Asked::Arriving(collect),
                Ok(true) => match collect.finish() {
                    Ok(known) => {
                        let known = Arc::new(known);
                        self.publisher.told(Arc::clone(&known));
                        self.base = Some(Base::Hashes(known));
                    }
                    Err(unusable) => self.unusable(&unusable),
                },
                Err(unusable) => self.unusable(&unusable),
            },
            Asked::Over => {}
            Asked::No | Asked::Wanted(_) => {
                return Err(End::Protocol("hashes that nobody has asked for".to_owned()));
            }
        }
        Ok(())
    }

    fn unusable(&self, reason: &Unusable) {
        self.in_vain(&reason.to_string());
    }

    fn in_vain(&self, reason: &str) {
        tracing::warn!(
            node = self.session.node_id(),
            reason,
            "a node did not tell what it serves: it gets the whole set"
        );
    }
}
