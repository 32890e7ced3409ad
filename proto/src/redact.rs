//! `Debug` of the messages that hold secrets: what is logged by mistake shows none.

use std::fmt;

use crate::v1::{
    BearerAuth, CreateTokenResponse, RevokeRequest, Secret, SecretValue, SessionKey,
    UnrevokeRequest,
};

/// Stands for what is not shown.
const HIDDEN: &str = "..";

/// Whether there is a value, and no more.
const fn hidden(value: &str) -> &'static str {
    if value.is_empty() { "" } else { HIDDEN }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name)
            .field("project", &self.project)
            .field("labels", &self.labels)
            .field("value", &hidden(&self.value))
            .field("backends", &self.backends)
            .finish()
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretValue")
            .field("project", &self.project)
            .field("name", &self.name)
            .field("value", &hidden(&self.value))
            .finish()
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKey")
            .field("key", &HIDDEN)
            .field("seals_from_ms", &self.seals_from_ms)
            .finish()
    }
}

/// A token in a file may still be the token itself.
impl fmt::Debug for BearerAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerAuth({} tokens)", self.tokens.len())
    }
}

impl fmt::Debug for CreateTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateTokenResponse")
            .field("token", &self.token)
            .field("value", &hidden(&self.value))
            .finish()
    }
}

impl fmt::Debug for RevokeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevokeRequest")
            .field("bearer", &hidden(&self.bearer))
            .field("project", &self.project)
            .field("expires_in", &self.expires_in)
            .field("message", &self.message)
            .finish()
    }
}

impl fmt::Debug for UnrevokeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnrevokeRequest")
            .field("bearer", &hidden(&self.bearer))
            .field("project", &self.project)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{ApplyRequest, AuthPolicy, Resource, SetPart, auth_policy, resource};

    const PLAIN: &str = "pl4in";

    #[test]
    fn whatever_holds_a_secret_is_printed_without_it() {
        let secret = Secret {
            name: "name".to_owned(),
            value: PLAIN.to_owned(),
            ..Secret::default()
        };
        let policy = AuthPolicy {
            scheme: Some(auth_policy::Scheme::Bearer(BearerAuth {
                tokens: vec![PLAIN.to_owned()],
            })),
            ..AuthPolicy::default()
        };
        let resources = [
            resource::Kind::Secret(secret),
            resource::Kind::AuthPolicy(policy),
        ];
        let apply = ApplyRequest {
            resources: resources.map(|kind| Resource { kind: Some(kind) }).into(),
            ..ApplyRequest::default()
        };
        let value = SecretValue {
            name: "name".to_owned(),
            value: PLAIN.to_owned(),
            ..SecretValue::default()
        };
        let key = SessionKey {
            key: vec![112; 32],
            seals_from_ms: 1,
        };
        let part = SetPart {
            secrets: vec![value],
            session_keys: vec![key],
            ..SetPart::default()
        };
        let revoke = RevokeRequest {
            bearer: PLAIN.to_owned(),
            ..RevokeRequest::default()
        };
        let unrevoke = UnrevokeRequest {
            bearer: PLAIN.to_owned(),
            ..UnrevokeRequest::default()
        };
        let made = CreateTokenResponse {
            value: PLAIN.to_owned(),
            ..CreateTokenResponse::default()
        };
        let shown = format!("{apply:?} {part:?} {revoke:?} {unrevoke:?} {made:?} {part:#?}");
        assert!(shown.contains("name"), "{shown}");
        assert!(!shown.contains(PLAIN) && !shown.contains("112"), "{shown}");
    }
}
