//! Tells clients that listen when what their gateway lists has changed: however many
//! catalogues change, and how often, a client hears of it once a [`LOOK`] at most.
//!
//! A task of its own, because a change of a catalogue must cost nothing where nobody
//! listens, and a new table changes lists as well.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    call::{Era, Method},
    catalog::render::Index,
    node::Node,
    session::Session,
    table::RouteTable,
};

/// How often it looks for changes.
const LOOK: Duration = Duration::from_millis(500);

/// What a listening client was last told of, or has seen.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Seen([Bytes; LISTS.len()]);

/// Lists, and what says that they have changed.
const LISTS: [(Method, &str); 4] = [
    (Method::ToolsList, "tools"),
    (Method::PromptsList, "prompts"),
    (Method::ResourcesList, "resources"),
    (Method::TemplatesList, "resources"),
];

impl Seen {
    /// The lists as they are now.
    #[must_use]
    pub fn of(index: &Index) -> Self {
        Self(LISTS.map(|(list, _)| {
            // What is the request's own comes first, what all share last.
            let listing = index.listing(list, Era::Legacy, b"");
            listing
                .and_then(|mut parts| parts.pop())
                .unwrap_or_default()
        }))
    }

    /// What to tell who has seen `before`.
    fn since(&self, before: &Self) -> Vec<Bytes> {
        let changed = (0..LISTS.len()).filter(|at| self.0[*at] != before.0[*at]);
        let mut kinds: Vec<_> = changed.map(|at| LISTS[at].1).collect();
        kinds.dedup();
        let message = |kind| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/{kind}/list_changed"}}"#).into()
        };
        kinds.into_iter().map(message).collect()
    }
}

/// Looks for changes until the node is gone.
pub(crate) async fn announce(node: Arc<Node>) {
    let mut seen = (0, Arc::<RouteTable>::default());
    loop {
        tokio::time::sleep(LOOK).await;
        let (epoch, table) = (node.epoch.load(Ordering::Acquire), node.table.load_full());
        if epoch == seen.0 && Arc::ptr_eq(&table, &seen.1) {
            continue;
        }
        for session in node.sessions.listening() {
            let mut gateways = table.gateways();
            if let Some(gateway) = gateways.find(|gateway| gateway.id == session.gateway()) {
                let index = gateway.fresh_index().await;
                tell(&session, Seen::of(&index));
            }
        }
        seen = (epoch, table);
    }
}

fn tell(session: &Session, now: Seen) {
    let Some(before) = session.sees(now.clone()) else {
        return;
    };
    for message in now.since(&before) {
        session.unsolicited(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_and_their_templates_change_together() {
        let seen = |lists: [&'static str; 4]| Seen(lists.map(|l| Bytes::from_static(l.as_bytes())));
        let before = seen(["t", "p", "r", "rt"]);
        assert!(before.since(&before.clone()).is_empty());
        let told = seen(["t2", "p", "r2", "rt2"]).since(&before);
        let told: Vec<_> = told.iter().map(|m| String::from_utf8_lossy(m)).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("tools") && told[1].contains("resources"));
    }
}
