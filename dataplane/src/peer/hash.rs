//! Rendezvous hashing: which of the data planes that live takes a session whose home is
//! gone. All of them come to the same answer by themselves, and one that comes or goes
//! moves no session but its own.
//!
//! FNV-1a, finished as in splitmix64. All versions must agree on it.

/// Of these starts of nodes the one that takes the session of this name.
pub(super) fn pick<'a, T>(
    session: &str,
    starts: impl IntoIterator<Item = (&'a str, T)>,
) -> Option<T> {
    let weighed = starts
        .into_iter()
        .map(|(boot, of)| (weight(session, boot), boot, of));
    // Two of the same weight are as good as impossible; then their names decide.
    let heaviest = weighed.max_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    heaviest.map(|(_, _, of)| of)
}

fn weight(session: &str, boot: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    // The byte between them is in no UTF-8 text: no two pairs give the same bytes.
    for byte in session.bytes().chain([0xff]).chain(boot.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn of<'a>(session: &str, nodes: &[&'a str]) -> &'a str {
        pick(session, nodes.iter().map(|node| (*node, *node))).unwrap()
    }

    proptest! {
        #[test]
        fn the_choice_depends_on_no_order_and_a_node_that_leaves_moves_only_its_own(
            session in "[0-9a-f]{24}",
            nodes in prop::collection::btree_set("[0-9a-f]{8}", 2..20),
            gone in any::<prop::sample::Index>(),
        ) {
            let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
            let reversed: Vec<&str> = nodes.iter().rev().copied().collect();
            let chosen = of(&session, &nodes);
            prop_assert_eq!(chosen, of(&session, &reversed));
            let gone = nodes[gone.index(nodes.len())];
            let left: Vec<&str> = nodes.iter().copied().filter(|node| *node != gone).collect();
            let then = of(&session, &left);
            prop_assert!(chosen == gone || chosen == then);
        }
    }

    #[test]
    fn sessions_spread_over_the_nodes_evenly() {
        let nodes = ["a", "b", "c", "d", "e"];
        let mut counts = BTreeMap::new();
        for session in 0..10_000 {
            *counts.entry(of(&session.to_string(), &nodes)).or_insert(0) += 1;
        }
        assert!(
            counts.values().all(|count| (1_800..2_200).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn the_choice_is_that_of_other_versions() {
        assert_eq!(weight("session", "boot"), 0x30a8_606e_6fb5_e540);
        assert_eq!(pick::<u8>("session", []), None);
    }
}
