//! The stream of a control plane ([`Incoming`], [`Arriving`]): what a node takes is whole, valid, and what it would
//! send itself.

use std::{collections::BTreeMap, sync::LazyLock};

use fleet_proto::{
    delta::{Delta, Incoming, Refusal, delta},
    key::Key,
    read::{Documents, read_yaml},
    sets::Arriving,
    v1::{Begin, Chunk, Commit, ControlMessage, Target, control_message::Message as Sent},
    validate::{Valid, validate, validate_encoded},
};
use prost::Message;

const SERVED: &str = include_str!("../../examples/gateways.yaml");

/// What the node serves when the stream begins.
static SERVED_SET: LazyLock<Valid> = LazyLock::new(|| {
    let mut documents = Documents::default();
    read_yaml("served", SERVED, &mut documents);
    validate(documents.resources()).expect("an example is valid")
});

/// The bytes as messages of a control plane, each after its length.
///
/// # Panics
/// A law is broken.
pub fn check(mut data: &[u8]) {
    let mut stream = Stream::default();
    while !data.is_empty()
        && let Ok(message) = ControlMessage::decode_length_delimited(&mut data)
    {
        stream.take(message);
    }
}

/// A node's side of the stream, as far as it makes sets.
#[derive(Default)]
struct Stream {
    incoming: Option<Incoming>,
    /// What came since the last `Begin`, whether the node took it or not.
    bodies: BTreeMap<Key, Vec<u8>>,
    arriving: Arriving,
}

impl Stream {
    fn take(&mut self, message: ControlMessage) {
        match message.message {
            Some(Sent::Begin(begin)) => {
                self.bodies.clear();
                self.incoming = Incoming::new(begin, Some(&SERVED_SET)).ok();
            }
            Some(Sent::Chunk(chunk)) => {
                self.note(&chunk);
                let taken = self.incoming.as_mut().map(|incoming| incoming.add(chunk));
                if taken.is_some_and(|taken| taken.is_err()) {
                    self.incoming = None;
                }
            }
            Some(Sent::Commit(commit)) => {
                let whole = self
                    .incoming
                    .take()
                    .map(|incoming| incoming.finish(&commit));
                if let Some(Ok(set)) = whole {
                    assert_eq!(set.root_hash().0[..], commit.root_hash[..]);
                    sound(&set);
                }
                // Bytes that are changed have another hash: looked at without one.
                if let Ok(set) = validate_encoded(std::mem::take(&mut self.bodies)) {
                    sound(&set);
                }
            }
            Some(Sent::SetPart(part)) => {
                if let Ok(Some((version, entries))) = self.arriving.add(part) {
                    let mut again = Arriving::default();
                    let parts = entries.clone().parts(&version);
                    let last = parts.into_iter().map(|part| again.add(part)).last();
                    assert_eq!(last, Some(Ok(Some((version, entries)))));
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, chunk: &Chunk) {
        for resource in &chunk.resources {
            let key = resource.key.as_ref().and_then(Key::from_wire);
            if let Some(key) = key {
                self.bodies.insert(key, resource.body.clone());
            }
        }
    }
}

/// The set is valid, and sent on it arrives.
fn sound(set: &Valid) {
    let bodies = set
        .iter()
        .map(|(key, entry)| (key.clone(), entry.body().to_vec()));
    let again = validate_encoded(bodies).expect("what was taken is valid");
    assert!(again == *set);
    for delta in [Delta::snapshot(set), delta(&SERVED_SET, set)] {
        let arrived = send(&delta).expect("what is sent arrives");
        assert!(arrived == *set);
    }
}

fn send(delta: &Delta) -> Result<Valid, Refusal> {
    let begin: Begin = delta.begin(7, Target::default());
    let chunks: Vec<_> = delta.chunks(7).collect();
    let commit: Commit = delta.commit(7, chunks.len() as u32);
    let mut incoming = Incoming::new(begin, Some(&SERVED_SET))?;
    for chunk in chunks {
        incoming.add(chunk)?;
    }
    incoming.finish(&commit)
}
