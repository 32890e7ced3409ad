//! Static bearer tokens (RFC 6750): kept as SHA-256, compared in constant time.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Principal;

/// The accepted tokens.
pub struct Tokens {
    accepted: Vec<([u8; 32], Arc<Principal>)>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.accepted.len())
    }
}

impl Tokens {
    /// Tokens as configuration holds them once references are resolved:
    /// `sha256:` and 64 hex digits, or the plain token.
    #[must_use]
    pub fn new<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Self {
        let accepted = tokens
            .into_iter()
            .map(|token| {
                let hash = stored_hash(token).unwrap_or_else(|| Sha256::digest(token).into());
                let id = id_of(&hash);
                (hash, Arc::new(Principal { id }))
            })
            .collect();
        Self { accepted }
    }

    /// The principal of this token, if it is accepted. Every accepted token is
    /// compared, whichever matches.
    #[must_use]
    pub fn principal(&self, token: &[u8]) -> Option<Arc<Principal>> {
        self.found(token).0
    }

    /// The hash of the token of this principal, if it is accepted.
    pub(super) fn hash_of(&self, principal: &Principal) -> Option<&[u8; 32]> {
        let mut accepted = self.accepted.iter();
        accepted
            .find(|(_, own)| **own == *principal)
            .map(|(hash, _)| hash)
    }

    /// As [`principal`](Self::principal), with the hash of the token.
    pub(super) fn found(&self, token: &[u8]) -> (Option<Arc<Principal>>, [u8; 32]) {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for (accepted, principal) in &self.accepted {
            if bool::from(accepted.ct_eq(&hash)) {
                found = Some(principal);
            }
        }
        (found.cloned(), hash)
    }
}

/// The principal of the token of this hash.
#[must_use]
pub fn id_of(hash: &[u8; 32]) -> String {
    format!("bearer:{}", hex::encode(&hash[..8]))
}

fn stored_hash(token: &str) -> Option<[u8; 32]> {
    let digits = token.strip_prefix("sha256:")?;
    let mut hash = [0; 32];
    hex::decode_to_slice(digits, &mut hash).ok()?;
    Some(hash)
}

/// The token of an `Authorization` value of the scheme `Bearer` (any case).
#[must_use]
pub fn token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    let token = rest.trim_ascii();
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_hashed_tokens_admit_the_same_principal() {
        let hashed = format!("sha256:{}", hex::encode(Sha256::digest("correct horse")));
        let plain = Tokens::new(["correct horse"])
            .principal(b"correct horse")
            .unwrap();
        let stored = Tokens::new(["other", hashed.as_str()])
            .principal(b"correct horse")
            .unwrap();
        assert_eq!(plain, stored);
        assert!(!plain.id.contains("horse"));
    }

    #[test]
    fn other_tokens_and_the_hash_itself_are_refused() {
        let hashed = format!("sha256:{}", hex::encode(Sha256::digest("correct horse")));
        let tokens = Tokens::new([hashed.as_str()]);
        assert!(tokens.principal(b"wrong").is_none());
        assert!(tokens.principal(hashed.as_bytes()).is_none());
        assert!(Tokens::new([]).principal(b"").is_none());
    }

    #[test]
    fn only_the_bearer_scheme_is_read() {
        assert_eq!(token(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(token(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!(token(b"Basic abc"), None);
        assert_eq!(token(b"Bearer "), None);
        assert_eq!(token(b"abc"), None);
    }
}
