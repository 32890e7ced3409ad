//! [`Room`]: what all share, of which nobody takes more than is left to others.

use std::collections::{HashMap, hash_map::Entry};

use crate::session::Owner;

/// Room for a number of things or bytes, and who has how much of it.
#[derive(Debug)]
pub(crate) struct Room {
    most: usize,
    taken: usize,
    owners: HashMap<Owner, usize>,
}

impl Room {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            taken: 0,
            owners: HashMap::new(),
        }
    }

    /// Takes so much for this owner, if as much is left to others as it has then.
    pub(crate) fn take(&mut self, owner: Owner, size: usize) -> bool {
        let own = self.owners.get(&owner).copied().unwrap_or_default();
        let fits = own + size <= self.most.saturating_sub(self.taken + size);
        if fits {
            self.taken += size;
            self.owners.insert(owner, own + size);
        }
        fits
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&mut self, owner: Owner, size: usize) {
        self.taken -= size;
        if let Entry::Occupied(mut own) = self.owners.entry(owner) {
            *own.get_mut() -= size;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_leaves_room_to_others() {
        let mut room = Room::new(4_000);
        let owners = ["a", "b", "c"].map(|name| Owner::new("p/a", name));
        let mut fill = |owner| (0..4_000).filter(|_| room.take(owner, 1)).count();
        assert_eq!(owners.map(&mut fill), [2_000, 1_000, 500]);
        room.give_back(owners[0], 2_000);
        assert_eq!((room.taken(), room.owners.len()), (1_500, 2));
    }
}
