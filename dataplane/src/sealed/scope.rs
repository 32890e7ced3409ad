//! [`Scope`]: what is sealed at one gateway for one client, and opens there for it only.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use serde::{Serialize, de::DeserializeOwned};

use super::{Binding, KeyRing, Sealed};
use crate::{
    auth::Principal,
    error::{CallError, INTERNAL_ERROR},
};

/// A gateway, as far as what it hands to its clients is concerned. Calls carry it, so
/// that they need not hold on to the gateway.
#[derive(Debug)]
pub struct Scope {
    /// Project and name of the gateway.
    gateway: String,
    keys: Arc<ArcSwap<KeyRing>>,
}

impl Scope {
    /// The scope of the gateway of this id, with the keys of its node.
    #[must_use]
    pub const fn new(gateway: String, keys: Arc<ArcSwap<KeyRing>>) -> Self {
        Self { gateway, keys }
    }

    /// That of a gateway `default/g` whose keys nobody else has.
    #[cfg(test)]
    pub(crate) fn of_tests() -> Arc<Self> {
        Self::of_tests_at("default/g")
    }

    /// The same of another gateway.
    #[cfg(test)]
    pub(crate) fn of_tests_at(gateway: &str) -> Arc<Self> {
        let keys = ArcSwap::from_pointee(KeyRing::of(&[[5; 32]]));
        Arc::new(Self::new(gateway.to_owned(), Arc::new(keys)))
    }

    /// Seals a value for a client.
    ///
    /// # Errors
    /// The system has no randomness, or the node no key.
    pub fn seal<T: Serialize>(
        &self,
        purpose: &'static str,
        principal: &Principal,
        value: T,
        lifetime: Duration,
    ) -> Result<String, CallError> {
        let binding = self.binding(purpose, principal);
        let sealed = self.keys.load().seal(value, lifetime, binding);
        sealed.map_err(|error| {
            tracing::error!(%error, purpose, "nothing could be sealed for a client");
            CallError::refused(INTERNAL_ERROR, "the answer could not be sealed")
        })
    }

    /// Opens what a client has sent back; `None`: it was not sealed here for this
    /// client and purpose, or its time is over.
    #[must_use]
    pub fn open<T: DeserializeOwned>(
        &self,
        purpose: &'static str,
        principal: &Principal,
        token: &str,
    ) -> Option<Sealed<T>> {
        let binding = self.binding(purpose, principal);
        self.keys.load().open(token, binding)
    }

    fn binding<'a>(&'a self, purpose: &'static str, principal: &'a Principal) -> Binding<'a> {
        Binding {
            purpose,
            gateway: &self.gateway,
            principal: &principal.id,
        }
    }
}
