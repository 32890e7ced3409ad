//! Who may call: admin tokens for the API, node tokens for the stream.
//!
//! Tokens are 256 random bits; only their SHA-256 is kept. Each role has one
//! base token, given in the settings or generated at the first start, and may
//! have one that `mcpctl up` makes anew at each of its starts.

use std::{fmt, sync::Arc};

use fleet_proto::hash::Hash;
use parking_lot::RwLock;
use subtle::ConstantTimeEq;
use tonic::{Request, Status, service::Interceptor};

use crate::{
    clock::now_ms,
    settings::Settings,
    store::{Store, StoreError, TokenRow},
};

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Reads and writes configuration.
    Admin,
    /// Receives configuration.
    Node,
}

impl Role {
    pub(crate) const ALL: [Self; 2] = [Self::Admin, Self::Node];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Node => "node",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Labels of tokens: where they came from.
const GENERATED: &str = "generated";
const GIVEN: &str = "given";
const UP: &str = "up";

/// The tokens of a store, in memory.
pub(crate) struct Tokens {
    store: Arc<dyn Store>,
    rows: RwLock<Vec<TokenRow>>,
    /// What is read from the store must not replace what is written meanwhile.
    turn: tokio::sync::Mutex<()>,
}

/// No token could be made or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl Tokens {
    /// Loads the tokens and sees to it that each role has one. Gives back the
    /// plain text of those that are new or given.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        settings: &Settings,
    ) -> Result<(Self, [Option<String>; 2]), TokenError> {
        let rows = RwLock::new(store.tokens().await?);
        let tokens = Self {
            store,
            rows,
            turn: tokio::sync::Mutex::default(),
        };
        let mut plain = [None, None];
        for (role, plain) in Role::ALL.into_iter().zip(&mut plain) {
            *plain = tokens.base(role, settings.token(role)).await?;
        }
        Ok((tokens, plain))
    }

    async fn base(&self, role: Role, given: Option<&str>) -> Result<Option<String>, TokenError> {
        // A given token stands instead of a generated one, and only while it is given.
        if let Some(given) = given {
            self.put(role, GIVEN, given).await?;
            self.remove(role, GENERATED).await?;
            return Ok(Some(given.to_owned()));
        }
        // It may be given to another control plane of the same store.
        let shared = self.store.shared().is_some();
        if !shared {
            self.remove(role, GIVEN).await?;
        }
        let base = |t: &TokenRow| t.label == GENERATED || (shared && t.label == GIVEN);
        if self.rows.read().iter().any(|t| t.role == role && base(t)) {
            return Ok(None);
        }
        let token = generate(role)?;
        let row = TokenRow {
            role,
            label: GENERATED.to_owned(),
            hash: Hash::of(token.as_bytes()),
            created_ms: now_ms(),
        };
        // Of control planes that start at once, one makes it.
        let added = self.store.add_token(row).await?;
        self.reload().await?;
        Ok(added.then_some(token))
    }

    /// Takes over what other control planes have written.
    pub(crate) async fn reload(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let rows = self.store.tokens().await?;
        *self.rows.write() = rows;
        Ok(())
    }

    /// A new token for `mcpctl up`; the one before it is void.
    pub(crate) async fn issue(&self, role: Role) -> Result<String, TokenError> {
        let token = generate(role)?;
        self.put(role, UP, &token).await?;
        Ok(token)
    }

    async fn put(&self, role: Role, label: &str, token: &str) -> Result<(), TokenError> {
        let hash = Hash::of(token.as_bytes());
        let row = TokenRow {
            role,
            label: label.to_owned(),
            hash,
            created_ms: now_ms(),
        };
        let _turn = self.turn.lock().await;
        self.store.put_token(row.clone()).await?;
        let mut rows = self.rows.write();
        rows.retain(|t| t.role != role || t.label != label);
        rows.push(row);
        Ok(())
    }

    async fn remove(&self, role: Role, label: &str) -> Result<(), TokenError> {
        let _turn = self.turn.lock().await;
        self.store.remove_token(role, label).await?;
        self.rows
            .write()
            .retain(|t| t.role != role || t.label != label);
        Ok(())
    }

    /// The role and the label of a token. Takes the same time for any wrong one.
    fn find(&self, token: &str) -> Option<(Role, String)> {
        let hash = Hash::of(token.as_bytes());
        let mut found = None;
        for row in self.rows.read().iter() {
            if bool::from(row.hash.0.ct_eq(&hash.0)) {
                found = Some((row.role, row.label.clone()));
            }
        }
        found
    }
}

/// 256 random bits, with a prefix that secret scanners and people recognise.
fn generate(role: Role) -> Result<String, TokenError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(TokenError::Random)?;
    Ok(format!("mcpfleet_{role}_{}", hex::encode(bytes)))
}

/// Who calls; an extension of every request that has passed a [`Guard`].
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) String);

/// Lets requests through that carry a token of one role.
#[derive(Clone)]
pub(crate) struct Guard {
    tokens: Arc<Tokens>,
    role: Role,
}

impl Guard {
    pub(crate) fn new(tokens: Arc<Tokens>, role: Role) -> Self {
        Self { tokens, role }
    }
}

impl Interceptor for Guard {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let role = self.role;
        let header = request.metadata().get("authorization").ok_or_else(|| {
            Status::unauthenticated(format!(
                "no token: send the {role} token as `authorization: Bearer TOKEN`"
            ))
        })?;
        let token = header.to_str().ok().and_then(bearer).ok_or_else(|| {
            Status::unauthenticated("the `authorization` metadata is not `Bearer TOKEN`")
        })?;
        match self.tokens.find(token) {
            Some((found, label)) if found == role => {
                let caller = if label == UP {
                    "mcpctl up".to_owned()
                } else {
                    role.to_string()
                };
                request.extensions_mut().insert(Caller(caller));
                Ok(request)
            }
            Some((found, _)) => Err(Status::unauthenticated(format!(
                "this is the {found} token: the {role} token is needed here"
            ))),
            None => Err(Status::unauthenticated(format!(
                "the {role} token is wrong: use the one printed at the first start of this control \
                 plane, or start it with MCP_FLEET_{}_TOKEN",
                role.as_str().to_ascii_uppercase()
            ))),
        }
    }
}

/// The token of an `Authorization` value; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
