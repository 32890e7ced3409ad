//! [`Tokens`]: the tokens of a store in memory, and who is let in with one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fleet_proto::{
    hash::Hash,
    v1::{self, TokenRole},
};
use parking_lot::RwLock;
use subtle::ConstantTimeEq;
use tokio::{sync::watch, time::timeout};

use super::{Access, Caller, Role};
use crate::{
    clock::now_ms,
    settings::Settings,
    store::{ApiTokenRow, AuditRow, Store, StoreError, TokenRow},
};

/// Labels of base tokens: where they came from.
const GENERATED: &str = "generated";
const GIVEN: &str = "given";
const UP: &str = "up";

/// After so long the tokens are read again: another control plane of the same
/// database may have revoked one.
const FRESH: Duration = Duration::from_secs(1);
/// How long a call waits for that. Then what is known already decides: while the
/// database is out of reach, reads go on.
const RELOAD: Duration = Duration::from_millis(500);

/// The tokens of a store, in memory.
pub(crate) struct Tokens {
    store: Arc<dyn Store>,
    known: RwLock<Known>,
    /// One writes or reads the store at a time, so that what was read before a
    /// write does not replace what was written. When it was last read.
    turn: tokio::sync::Mutex<Instant>,
    /// Counts changes of base tokens.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    base: Vec<TokenRow>,
    api: Vec<ApiTokenRow>,
}

/// No token could be made or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Why a caller is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(String);

impl Tokens {
    /// Loads the tokens and sees to it that each role has one. Gives back the
    /// plain text of those that are new or given.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        settings: &Settings,
    ) -> Result<(Self, [Option<String>; 2]), TokenError> {
        let known = Known {
            base: store.tokens().await?,
            api: store.api_tokens().await?,
        };
        let tokens = Self {
            store,
            known: RwLock::new(known),
            turn: tokio::sync::Mutex::new(Instant::now()),
            changes: watch::Sender::new(0),
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
        let known = |t: &TokenRow| t.role == role && base(t);
        if self.known.read().base.iter().any(known) {
            return Ok(None);
        }
        let token = generate(role.as_str())?;
        let row = TokenRow {
            role,
            label: GENERATED.to_owned(),
            hash: Hash::of(token.as_bytes()),
            created_ms: now_ms(),
        };
        let mut turn = self.turn.lock().await;
        // Of control planes that start at once, one makes it.
        let added = self.store.add_token(row).await?;
        self.load(&mut turn).await?;
        Ok(added.then_some(token))
    }

    /// A new token for `mcpctl up`; the one before it is void.
    pub(crate) async fn issue(&self, role: Role) -> Result<String, TokenError> {
        let token = generate(role.as_str())?;
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
        let mut known = self.known.write();
        known.base.retain(|t| t.role != role || t.label != label);
        known.base.push(row);
        drop(known);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn remove(&self, role: Role, label: &str) -> Result<(), TokenError> {
        let _turn = self.turn.lock().await;
        self.store.remove_token(role, label).await?;
        let mut known = self.known.write();
        known.base.retain(|t| t.role != role || t.label != label);
        drop(known);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Keeps a token of the API. `false`: a good one has its name.
    pub(crate) async fn create(
        &self,
        row: ApiTokenRow,
        audit: AuditRow,
    ) -> Result<bool, StoreError> {
        let _turn = self.turn.lock().await;
        let done = self.store.put_api_token(row.clone(), audit).await?;
        if done {
            self.known.write().api.push(row);
        }
        Ok(done)
    }

    /// Revokes a token of the API. `false`: somebody else has done so.
    pub(crate) async fn revoke(
        &self,
        id: &str,
        at_ms: u64,
        audit: AuditRow,
    ) -> Result<bool, StoreError> {
        let _turn = self.turn.lock().await;
        let done = self.store.revoke_api_token(id.to_owned(), at_ms, audit);
        let done = done.await?;
        let mut known = self.known.write();
        if let Some(row) = known.api.iter_mut().find(|row| row.id == id) {
            row.revoked_ms = row.revoked_ms.or(Some(at_ms));
        }
        Ok(done)
    }

    /// The tokens of the API.
    pub(crate) async fn list(&self) -> Vec<ApiTokenRow> {
        self.refresh().await;
        self.known.read().api.clone()
    }

    /// Lets a caller through this door who shows a good token in an `Authorization`
    /// header. `peer`: where the call comes from.
    pub(crate) async fn admit(
        &self,
        door: Role,
        header: Option<&http::HeaderValue>,
        peer: String,
    ) -> Result<Caller, Refused> {
        let header = header.ok_or_else(|| {
            Refused(format!(
                "no token: send {} as `authorization: Bearer TOKEN`",
                match door {
                    Role::Admin => "an API token",
                    Role::Node => "the node token",
                }
            ))
        })?;
        let token =
            header.to_str().ok().and_then(bearer).ok_or_else(|| {
                Refused("the `authorization` value is not `Bearer TOKEN`".to_owned())
            })?;
        self.refresh().await;
        let hash = Hash::of(token.as_bytes());
        let caller = self.find(door, hash)?;
        Ok(Caller {
            peer,
            hash,
            ..caller
        })
    }

    /// Whether a caller who was let through would be so now.
    pub(crate) async fn admits_still(&self, caller: &Caller) -> Result<(), Refused> {
        self.refresh().await;
        self.find(Role::Admin, caller.hash).map(drop)
    }

    /// Hears of every change of a base token.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether this, hashed, is a node token.
    pub(crate) fn is_node_token(&self, hash: Hash) -> bool {
        self.find(Role::Node, hash).is_ok()
    }

    /// Takes the same time for any wrong token.
    fn find(&self, door: Role, hash: Hash) -> Result<Caller, Refused> {
        let known = self.known.read();
        let same = |row: &Hash| bool::from(row.0.ct_eq(&hash.0));
        let mut found = None;
        for row in &known.base {
            if same(&row.hash) {
                found = Some((row.role, base_token(row)));
            }
        }
        for row in &known.api {
            if same(&row.hash) {
                found = Some((Role::Admin, wire(row)));
            }
        }
        match found {
            Some((role, token)) if role == door => good(token),
            Some((Role::Node, _)) => Err(Refused(
                "this is the node token: an API token is needed here".to_owned(),
            )),
            Some((Role::Admin, _)) => Err(Refused(
                "this is an API token: the node token is needed here".to_owned(),
            )),
            None => Err(Refused(format!(
                "the {door} token is wrong: use the one printed at the first start of this control \
                 plane, or start it with MCP_FLEET_{}_TOKEN{}",
                door.as_str().to_ascii_uppercase(),
                match door {
                    Role::Admin => ", or use an API token that an admin has made",
                    Role::Node => "",
                }
            ))),
        }
    }

    /// Reads the tokens again, unless that was done just now.
    pub(crate) async fn refresh(&self) {
        // Who is busy with them has them fresh in a moment.
        let Ok(mut turn) = self.turn.try_lock() else {
            return;
        };
        if turn.elapsed() < FRESH {
            return;
        }
        let why = match timeout(RELOAD, self.load(&mut turn)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the database does not answer".to_owned(),
        };
        *turn = Instant::now();
        tracing::warn!(why, "tokens could not be read again: those known decide");
    }

    async fn load(&self, turn: &mut Instant) -> Result<(), StoreError> {
        let base = self.store.tokens().await?;
        let api = self.store.api_tokens().await?;
        let other = self.known.read().base != base;
        *self.known.write() = Known { base, api };
        *turn = Instant::now();
        if other {
            self.changes.send_modify(|count| *count += 1);
        }
        Ok(())
    }
}

fn good(token: v1::Token) -> Result<Caller, Refused> {
    let name = &token.name;
    if token.revoked_ms != 0 {
        return Err(Refused(format!(
            "token `{name}` has been revoked: ask an admin for a new one"
        )));
    }
    if token.expires_ms != 0 && token.expires_ms <= now_ms() {
        return Err(Refused(format!(
            "token `{name}` has expired: ask an admin for a new one"
        )));
    }
    let access = Access::from_wire(token.role()).unwrap_or(Access::Viewer);
    Ok(Caller {
        token,
        access,
        peer: String::new(),
        hash: Hash([0; 32]),
    })
}

/// A base token as the API shows it to its holder.
fn base_token(row: &TokenRow) -> v1::Token {
    let name = if row.label == UP {
        "mcpctl up"
    } else {
        row.role.as_str()
    };
    v1::Token {
        name: name.to_owned(),
        role: TokenRole::Admin.into(),
        created_ms: row.created_ms,
        created_by: "control plane".to_owned(),
        ..Default::default()
    }
}

/// A token as the API shows it.
pub(crate) fn wire(row: &ApiTokenRow) -> v1::Token {
    v1::Token {
        name: row.name.clone(),
        role: row.access.to_wire().into(),
        projects: row.projects.clone(),
        created_ms: row.created_ms,
        created_by: row.created_by.clone(),
        expires_ms: row.expires_ms.unwrap_or(0),
        revoked_ms: row.revoked_ms.unwrap_or(0),
        id: row.id.clone(),
    }
}

/// 256 random bits, with a prefix that secret scanners and people recognise.
pub(crate) fn generate(what: &str) -> Result<String, TokenError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(TokenError::Random)?;
    Ok(format!("mcpfleet_{what}_{}", hex::encode(bytes)))
}

/// The token of an `Authorization` value; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
