//! Secrets, session keys, revocations and peers on the stream: cut into parts on one side,
//! put together on the other.

use prost::Message;

use crate::{
    delta::CHUNK,
    v1::{Peer, Revocation, SecretValue, SessionKey, SetKind, SetPart, SetVersion},
};

/// What one set holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Entries {
    /// The values of Secrets.
    Secrets(Vec<SecretValue>),
    /// The keys of sessions.
    SessionKeys(Vec<SessionKey>),
    /// What must not be accepted.
    Revocations(Vec<Revocation>),
    /// The data planes that live.
    Peers(Vec<Peer>),
}

impl Entries {
    /// Of which set.
    #[must_use]
    pub const fn kind(&self) -> SetKind {
        match self {
            Self::Secrets(_) => SetKind::Secrets,
            Self::SessionKeys(_) => SetKind::SessionKeys,
            Self::Revocations(_) => SetKind::Revocations,
            Self::Peers(_) => SetKind::Peers,
        }
    }

    /// The parts that result in this version: at least one.
    #[must_use]
    pub fn parts(self, version: &SetVersion) -> Vec<SetPart> {
        let empty = SetPart {
            version: Some(version.clone()),
            ..SetPart::default()
        };
        let mut parts = match self {
            Self::Secrets(all) => cut(all, &empty, |part| &mut part.secrets),
            Self::SessionKeys(all) => cut(all, &empty, |part| &mut part.session_keys),
            Self::Revocations(all) => cut(all, &empty, |part| &mut part.revocations),
            Self::Peers(all) => cut(all, &empty, |part| &mut part.peers),
        };
        for (number, part) in parts.iter_mut().enumerate() {
            part.number = number as u32;
        }
        if let Some(part) = parts.last_mut() {
            part.last = true;
        }
        parts
    }
}

fn cut<T: Message>(
    entries: Vec<T>,
    empty: &SetPart,
    of: impl Fn(&mut SetPart) -> &mut Vec<T>,
) -> Vec<SetPart> {
    // Room for number, flag and the lengths before each entry.
    let fresh = empty.encoded_len() + 16;
    let mut parts = vec![empty.clone()];
    let mut size = fresh;
    for entry in entries {
        let entry_size = entry.encoded_len() + 8;
        if size + entry_size > CHUNK && size > fresh {
            parts.push(empty.clone());
            size = fresh;
        }
        size += entry_size;
        if let Some(part) = parts.last_mut() {
            of(part).push(entry);
        }
    }
    parts
}

/// What arrived is not a set as it was sent. Nothing of it is used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A part is missing, twice or out of order, or is of another set.
    #[error("a part of a set came where another one was to come")]
    Order,
    /// It is of no set that is known, or holds entries of another one.
    #[error("a part of a set is of a kind that is not known here")]
    Kind,
}

/// A set that is arriving.
#[derive(Debug, Default)]
pub struct Arriving(Option<(SetVersion, u32, Entries)>);

impl Arriving {
    /// Takes the next part; with the last one, gives the set.
    ///
    /// # Errors
    /// Parts that do not belong together.
    pub fn add(&mut self, mut part: SetPart) -> Result<Option<(SetVersion, Entries)>, Broken> {
        let version = part.version.take().ok_or(Broken::Kind)?;
        let (mut expected, mut entries) = match self.0.take() {
            None => (0, none(version.set())?),
            Some((begun, next, entries)) if begun == version => (next, entries),
            Some(_) => return Err(Broken::Order),
        };
        if part.number != expected {
            return Err(Broken::Order);
        }
        expected += 1;
        match &mut entries {
            Entries::Secrets(all) => all.append(&mut part.secrets),
            Entries::SessionKeys(all) => all.append(&mut part.session_keys),
            Entries::Revocations(all) => all.append(&mut part.revocations),
            Entries::Peers(all) => all.append(&mut part.peers),
        }
        let of_others = part.secrets.len()
            + part.session_keys.len()
            + part.revocations.len()
            + part.peers.len();
        if of_others > 0 {
            return Err(Broken::Kind);
        }
        if part.last {
            return Ok(Some((version, entries)));
        }
        self.0 = Some((version, expected, entries));
        Ok(None)
    }
}

const fn none(kind: SetKind) -> Result<Entries, Broken> {
    match kind {
        SetKind::Secrets => Ok(Entries::Secrets(Vec::new())),
        SetKind::SessionKeys => Ok(Entries::SessionKeys(Vec::new())),
        SetKind::Revocations => Ok(Entries::Revocations(Vec::new())),
        SetKind::Peers => Ok(Entries::Peers(Vec::new())),
        SetKind::Unspecified => Err(Broken::Kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(kind: SetKind) -> SetVersion {
        SetVersion {
            set: kind.into(),
            version: 7,
            tag: vec![1; 16],
        }
    }

    fn secrets(count: usize, size: usize) -> Entries {
        let value = |n| SecretValue {
            project: "default".to_owned(),
            name: format!("s{n}"),
            value: "v".repeat(size),
        };
        Entries::Secrets((0..count).map(value).collect())
    }

    fn arrive(parts: Vec<SetPart>) -> Result<Option<(SetVersion, Entries)>, Broken> {
        let mut arriving = Arriving::default();
        let mut last = Ok(None);
        for part in parts {
            last = arriving.add(part);
            if last.is_err() {
                break;
            }
        }
        last
    }

    #[test]
    fn a_set_of_any_size_arrives_whole_in_parts_of_256_kib() {
        let version = version(SetKind::Secrets);
        for (count, size, parts_at_least) in [
            (0, 0, 1),
            (1, 64 << 10, 1),
            (20, 64 << 10, 5),
            (50_000, 8, 5),
        ] {
            let set = secrets(count, size);
            let parts = set.clone().parts(&version);
            assert!(parts.len() >= parts_at_least, "{count}: {}", parts.len());
            assert!(
                parts.iter().all(|part| part.encoded_len() <= CHUNK),
                "{count}"
            );
            assert_eq!(arrive(parts).unwrap(), Some((version.clone(), set)));
        }
    }

    #[test]
    fn parts_that_do_not_belong_together_make_no_set() {
        let parts = secrets(20, 64 << 10).parts(&version(SetKind::Secrets));
        let without_first = parts[1..].to_vec();
        assert_eq!(arrive(without_first), Err(Broken::Order));
        let twice = vec![parts[0].clone(), parts[0].clone()];
        assert_eq!(arrive(twice), Err(Broken::Order));
        let mut other = parts[1].clone();
        other.version = Some(version(SetKind::Revocations));
        assert_eq!(arrive(vec![parts[0].clone(), other]), Err(Broken::Order));
        let mut mixed = parts[0].clone();
        mixed.session_keys.push(SessionKey::default());
        assert_eq!(arrive(vec![mixed]), Err(Broken::Kind));
        let unknown = SetPart {
            version: Some(version(SetKind::Unspecified)),
            last: true,
            ..SetPart::default()
        };
        assert_eq!(arrive(vec![unknown]), Err(Broken::Kind));
        assert_eq!(arrive(parts[..1].to_vec()), Ok(None));
    }
}
