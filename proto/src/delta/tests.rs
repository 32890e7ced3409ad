//! The law `apply(a, delta(a, b)) == b`, also over the wire and with a wire that
//! loses, repeats and reorders.

use std::collections::BTreeMap;

use proptest::{collection, prelude::*, sample::Index};

use super::{known::Collect, *};
use crate::{
    hash::root_hash,
    v1::{Backend, HttpBackend, KnownHashes, Resource, backend::Transport, resource},
    validate::validate,
};

/// Names and what their backends say; large texts make many chunks.
type Set = BTreeMap<u8, (u8, u32)>;

fn sets() -> impl Strategy<Value = (Set, Set)> {
    let text = prop_oneof![9 => 0..100u32, 1 => 60_000..300_000u32];
    let change = prop_oneof![Just(None), (0..4u8, text.clone()).prop_map(Some)];
    (
        collection::btree_map(any::<u8>(), (0..4u8, text), 0..40),
        collection::btree_map(any::<u8>(), change, 0..40),
    )
        .prop_map(|(a, changes)| {
            let mut b = a.clone();
            for (name, change) in changes {
                match change {
                    Some(change) => b.insert(name, change),
                    None => b.remove(&name),
                };
            }
            (a, b)
        })
}

fn valid(set: &Set) -> Valid {
    let resources = set.iter().map(|(name, (what, length))| {
        let http = HttpBackend {
            url: format!("http://127.0.0.1:{}/mcp", 1000 + u16::from(*what)),
            headers: [("x-long".to_owned(), "x".repeat(*length as usize))].into(),
            ..HttpBackend::default()
        };
        let backend = Backend {
            name: format!("b{name}"),
            transport: Some(Transport::Http(http)),
            ..Backend::default()
        };
        Resource {
            kind: Some(resource::Kind::Backend(backend)),
        }
    });
    validate(resources).unwrap()
}

fn sent(delta: &Delta) -> (Begin, Vec<Chunk>, Commit) {
    let chunks: Vec<_> = delta.chunks(7).collect();
    let commit = delta.commit(7, chunks.len() as u32);
    (delta.begin(7, Target::default()), chunks, commit)
}

fn receive(
    served: &Valid,
    (begin, chunks, commit): (Begin, Vec<Chunk>, Commit),
) -> Result<Valid, Refusal> {
    let mut incoming = Incoming::new(begin, Some(served))?;
    for chunk in chunks {
        incoming.add(chunk)?;
    }
    incoming.finish(&commit)
}

/// What can happen to chunks.
#[derive(Clone, Debug)]
enum Mishap {
    Repeat(Index),
    Lose(Index),
    Swap(Index, Index),
    Truncate(Index),
}

fn mishap() -> impl Strategy<Value = Mishap> {
    let at = any::<Index>;
    prop_oneof![
        at().prop_map(Mishap::Repeat),
        at().prop_map(Mishap::Lose),
        (at(), at()).prop_map(|(a, b)| Mishap::Swap(a, b)),
        at().prop_map(Mishap::Truncate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_delta_applied_to_its_base_gives_its_target((a, b) in sets()) {
        let (a, b) = (valid(&a), valid(&b));
        for delta in [delta(&a, &b), Delta::snapshot(&b), Delta::smaller(&a, &b)] {
            let made = apply(&a, &delta).unwrap();
            let whole = root_hash(made.iter().map(|(key, entry)| (key, entry.hash())));
            prop_assert_eq!(made.root_hash(), whole, "the buckets are kept right");
            prop_assert!(made.iter().eq(b.iter()));

            let (begin, chunks, commit) = sent(&delta);
            for chunk in &chunks {
                let parts = chunk.resources.len() + chunk.removed.len();
                prop_assert!(parts == 1 || chunk.encoded_len() <= CHUNK);
            }
            let made = receive(&a, (begin, chunks, commit)).unwrap();
            prop_assert!(made.iter().eq(b.iter()));
            prop_assert_eq!(made.root_hash(), whole);
        }
    }

    #[test]
    fn a_delta_made_by_hashes_alone_gives_the_same_set((a, b) in sets()) {
        let (a, b) = (valid(&a), valid(&b));
        let known = told(&a).unwrap();
        prop_assert_eq!(known.root_hash(), a.root_hash());
        let by_hashes = from_known(&known, &b);
        prop_assert_eq!(&by_hashes, &delta(&a, &b));
        let made = receive(&a, sent(&by_hashes)).unwrap();
        prop_assert!(made.iter().eq(b.iter()));
    }

    #[test]
    fn what_arrives_otherwise_than_it_was_sent_is_not_used(
        (a, b) in sets(), mishap in mishap(), whole in any::<bool>()
    ) {
        let (a, b) = (valid(&a), valid(&b));
        let delta = if whole { Delta::snapshot(&b) } else { delta(&a, &b) };
        let (begin, mut chunks, commit) = sent(&delta);
        prop_assume!(!chunks.is_empty());
        let before = chunks.clone();
        match mishap {
            Mishap::Repeat(at) => {
                let at = at.index(chunks.len());
                chunks.insert(at, chunks[at].clone());
            }
            Mishap::Lose(at) => drop(chunks.remove(at.index(chunks.len()))),
            Mishap::Swap(one, other) => {
                let (one, other) = (one.index(chunks.len()), other.index(chunks.len()));
                chunks.swap(one, other);
            }
            Mishap::Truncate(at) => chunks.truncate(at.index(chunks.len())),
        }
        let same = chunks == before;
        let received = receive(&a, (begin, chunks, commit));
        match received {
            Ok(set) => prop_assert!(same && set == b),
            Err(refusal) => {
                prop_assert!(!same && matches!(refusal, Refusal::Broken(_)), "{refusal:?}");
            }
        }
    }

    #[test]
    fn a_delta_for_another_base_is_not_used((a, b) in sets(), (c, _) in sets()) {
        let (a, b, c) = (valid(&a), valid(&b), valid(&c));
        prop_assume!(a != c);
        let received = receive(&c, sent(&delta(&a, &b)));
        prop_assert_eq!(received.unwrap_err(), Refusal::Broken(Broken::Base));
    }
}

#[test]
fn a_whole_set_is_sent_where_that_is_less() {
    let many: Set = (0..200).map(|n| (n, (0, 0))).collect();
    let few: Set = (0..3).map(|n| (n, (0, 0))).collect();
    let (many, few) = (valid(&many), valid(&few));
    assert!(Delta::smaller(&many, &few).is_snapshot());
    assert!(!Delta::smaller(&few, &many).is_snapshot());
    assert_eq!(Delta::smaller(&few, &many).counts(), (197, 0));
    assert_eq!(delta(&few, &few).counts(), (0, 0));
}

#[test]
fn a_root_hash_that_does_not_come_out_restarts_a_delta_and_refuses_a_snapshot() {
    let one: Set = [(1, (0, 0))].into();
    let (empty, one) = (Valid::empty(), valid(&one));
    let lie = |delta: &Delta| {
        let (begin, chunks, commit) = sent(delta);
        let root_hash = vec![1; 32];
        (
            begin,
            chunks,
            Commit {
                root_hash,
                ..commit
            },
        )
    };
    let restarted = receive(&empty, lie(&delta(&empty, &one))).unwrap_err();
    assert!(matches!(restarted, Refusal::Broken(Broken::Root { .. })));
    let refused = receive(&empty, lie(&Delta::snapshot(&one))).unwrap_err();
    assert!(matches!(refused, Refusal::Problems(_)), "{refused:?}");
}

#[test]
fn what_a_data_plane_does_not_know_is_a_problem_and_no_accident() {
    let one: Set = [(1, (0, 0))].into();
    let (begin, mut chunks, commit) = sent(&Delta::snapshot(&valid(&one)));
    chunks[0].resources[0].key.as_mut().unwrap().kind = "Toaster".to_owned();
    let refused = receive(&Valid::empty(), (begin, chunks, commit)).unwrap_err();
    let Refusal::Problems(problems) = refused else {
        panic!("{refused:?}");
    };
    assert!(problems[0].message.contains("upgrade"), "{problems:?}");

    let begin = Begin {
        mode: 99,
        ..Begin::default()
    };
    let incoming = Incoming::new(begin, None).unwrap();
    let refused = incoming.finish(&Commit::default()).unwrap_err();
    assert!(matches!(refused, Refusal::Problems(_)), "{refused:?}");
}

/// What a control plane makes of what a node tells.
fn told(served: &Valid) -> Result<Known, known::Unusable> {
    collected(served.root_hash(), known::parts(served.clone()))
}

fn collected(
    root: Hash,
    parts: impl IntoIterator<Item = KnownHashes>,
) -> Result<Known, known::Unusable> {
    let mut collect = Collect::new(root);
    let mut over = false;
    for part in parts {
        over |= collect.add(part)?;
    }
    assert!(over, "one of them is the last");
    collect.finish()
}

#[test]
fn hashes_come_in_parts_that_are_checked_as_a_whole() {
    let names = |range: std::ops::Range<usize>| {
        let resources = range.map(|n| {
            let http = HttpBackend {
                url: "http://127.0.0.1:1/mcp".to_owned(),
                ..HttpBackend::default()
            };
            let backend = Backend {
                name: format!("b{n}"),
                transport: Some(Transport::Http(http)),
                ..Backend::default()
            };
            Resource {
                kind: Some(resource::Kind::Backend(backend)),
            }
        });
        validate(resources).unwrap()
    };
    let set = names(0..2 * known::ENTRIES + 1);
    let parts: Vec<_> = known::parts(set.clone()).collect();
    let shape: Vec<_> = parts.iter().map(|p| (p.hashes.len(), p.last)).collect();
    assert_eq!(
        shape,
        [(known::ENTRIES, false), (known::ENTRIES, false), (1, true)]
    );
    assert!(told(&set).is_ok() && told(&Valid::empty()).is_ok());

    let refused = |change: fn(&mut Vec<KnownHashes>)| {
        let mut parts = parts.clone();
        change(&mut parts);
        collected(set.root_hash(), parts).unwrap_err()
    };
    use known::Unusable::{Entry, Order, Root, TooMany, Twice};
    assert!(matches!(refused(|p| p.swap(0, 1)), Order { .. }));
    assert!(matches!(refused(|p| drop(p.remove(1))), Order { .. }));
    assert!(matches!(refused(|p| p[2].hashes.clear()), Root { .. }));
    assert!(matches!(
        refused(|p| p[1].hashes[0].hash[0] ^= 1),
        Root { .. }
    ));
    assert_eq!(refused(|p| p[1].hashes[0].hash.clear()), Entry);
    assert_eq!(refused(|p| p[1].hashes[0].key = None), Entry);
    let again: fn(&mut Vec<KnownHashes>) = |p| p[2].hashes[0] = p[0].hashes[0].clone();
    assert!(matches!(refused(again), Twice(_)));
    let large: fn(&mut Vec<KnownHashes>) = |p| {
        let more = p[2].hashes[0].clone();
        p[0].hashes.push(more);
    };
    assert_eq!(refused(large), TooMany);
    let endless = (0..=known::PARTS).map(|number| KnownHashes {
        number,
        ..KnownHashes::default()
    });
    assert_eq!(collected(set.root_hash(), endless).unwrap_err(), TooMany);
}
