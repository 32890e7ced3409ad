//! What backends ask clients: `sampling/createMessage`, `elicitation/create`,
//! `roots/list`, whatever else.
//!
//! The client sees a request under an id that is a sealed token. It says everything
//! that is needed to post the answer, so any node can do that: the answer may arrive
//! at another one than the call that it is for. A `progressToken` of such a request is
//! another such token.
//!
//! Beside that the node which has the call remembers that an answer is owed: the
//! backend's `timeout` stops meanwhile.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Session, inflight::CallId};
use crate::{
    envelope::{self, Edit, Message, Span},
    error::{INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND},
    sealed,
};

/// Answers that a session may owe at a time. A backend that asks for more is refused.
const MOST: usize = 64;

/// Where an answer goes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Via {
    /// To a legacy HTTP backend: any node can post it.
    #[serde(rename = "h")]
    Http {
        /// The upstream session; `None`: the server keeps no sessions.
        #[serde(rename = "u")]
        session: Option<String>,
        /// Its version, for `MCP-Protocol-Version`.
        #[serde(rename = "p")]
        version: String,
        /// Names the address that the question came from: an answer goes nowhere else,
        /// whatever a backend of the same name has become.
        #[serde(rename = "a")]
        address: String,
    },
    /// Over a connection, which only its own node has: to a child process, a WebSocket.
    #[serde(rename = "c")]
    Child {
        /// Names the connection: the next one knows nothing of the question.
        #[serde(rename = "i")]
        child: String,
    },
    /// To a call on the client's own node, which waits for it.
    #[serde(rename = "w")]
    Call {
        /// Who waits.
        #[serde(rename = "w")]
        waiter: String,
    },
}

/// What the id of a question, or its progress token, says.
#[derive(Debug, Deserialize, Serialize)]
pub struct Asked {
    /// Names the session.
    #[serde(rename = "n")]
    session: String,
    /// The backend's name.
    #[serde(rename = "b")]
    pub backend: String,
    /// Where the answer goes.
    #[serde(rename = "v")]
    pub via: Via,
    /// Source text of the backend's own id, or progress token.
    #[serde(rename = "i")]
    pub own: Box<RawValue>,
    /// Names the question where it was asked.
    #[serde(rename = "q")]
    serial: String,
}

impl Asked {
    /// The message with the backend's own id, or progress token, in the place of ours.
    #[must_use]
    pub fn restored(&self, body: &Bytes, token: Span) -> Option<Bytes> {
        let own = self.own.get().as_bytes();
        envelope::splice(body, &mut [Edit::replace(token, own)]).ok()
    }
}

/// Who asks.
pub struct Asker<'a> {
    /// The backend's name.
    pub backend: &'a str,
    /// Where the answer goes.
    pub via: Via,
    /// The call on whose stream the question came, if on one of a call.
    pub call: Option<CallId>,
}

/// Why a question is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unasked {
    /// Nobody promised that it could be.
    #[error("the client has not declared this capability")]
    NotDeclared,
    /// It can be asked for something, but not in this way.
    #[error("the client has not declared this mode of elicitation")]
    ModeNotDeclared,
    /// Too many are open.
    #[error("the client owes too many answers")]
    TooMany,
    /// It cannot be written.
    #[error("the request cannot be passed to the client")]
    Unwritten,
}

impl Unasked {
    /// The JSON-RPC code with which the backend is told (2025-11-25, Elicitation: Error Handling,
    /// and alike elsewhere).
    #[must_use]
    pub const fn code(self) -> i64 {
        match self {
            Self::NotDeclared => METHOD_NOT_FOUND,
            Self::ModeNotDeclared => INVALID_PARAMS,
            Self::TooMany | Self::Unwritten => INTERNAL_ERROR,
        }
    }
}

/// On whom a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// On the client, who owes an answer.
    Client,
    /// On the backend: since the client's last answer, if there was one.
    Backend(Option<Instant>),
}

/// The answers that are owed, and when the last ones came.
#[derive(Default)]
pub(super) struct Owed(Vec<Debt>);

struct Debt {
    call: CallId,
    serial: String,
    paid: Option<Instant>,
}

/// What the token of a question is for.
#[derive(Clone, Copy, Debug)]
pub enum Token {
    /// The id: an answer comes back with it.
    Id,
    /// The progress token: notifications of progress do.
    Progress,
}

impl Token {
    const fn purpose(self) -> &'static str {
        match self {
            Self::Id => "asked",
            Self::Progress => "asked-progress",
        }
    }
}

impl Session {
    /// A request of a backend as the client is to see it.
    ///
    /// # Errors
    /// It is not to be asked, and the backend is to be told why.
    pub fn question(
        &self,
        asker: &Asker<'_>,
        request: &Bytes,
        message: &Message,
    ) -> Result<Bytes, Unasked> {
        let method = message.method.map_or(&b""[..], |span| span.of(request));
        if !self.has_declared(method) {
            return Err(Unasked::NotDeclared);
        }
        if method == b"elicitation/create" && !self.has_declared_mode(request, message) {
            return Err(Unasked::ModeNotDeclared);
        }
        let id = message.id.ok_or(Unasked::Unwritten)?;
        let serial = sealed::random::<6>().map_err(|_| Unasked::Unwritten)?;
        let serial = hex::encode(serial);
        let token = |kind: Token, span: Span| {
            let own = std::str::from_utf8(span.of(request)).ok()?.to_owned();
            let asked = Asked {
                session: self.name.clone(),
                backend: asker.backend.to_owned(),
                via: asker.via.clone(),
                own: RawValue::from_string(own).ok()?,
                serial: serial.clone(),
            };
            let sealed = self.seal(kind.purpose(), asked).ok()?;
            Some(format!("\"{sealed}\""))
        };
        let shown = token(Token::Id, id).ok_or(Unasked::Unwritten)?;
        let mut edits = vec![Edit::replace(id, shown.as_bytes())];
        let progress = message
            .progress_token
            .map(|span| Some((span, token(Token::Progress, span)?)));
        if let Some(progress) = &progress {
            let (span, shown) = progress.as_ref().ok_or(Unasked::Unwritten)?;
            edits.push(Edit::replace(*span, shown.as_bytes()));
        }
        let request = envelope::splice(request, &mut edits).map_err(|_| Unasked::Unwritten)?;
        if let Some(call) = asker.call {
            self.owe(call, serial)?;
        }
        Ok(request)
    }

    /// What a token in an answer (a JSON string with its quotes), or in a notification
    /// of progress, says. `None`: it is none, it is over, or it is not this session's.
    #[must_use]
    pub fn asked(&self, kind: Token, body: &[u8], token: Span) -> Option<Asked> {
        let token = envelope::string_value(body, token)?;
        let asked: Asked = self.open(kind.purpose(), &token)?;
        (asked.session == self.name).then_some(asked)
    }

    /// Notes that an answer has come. The question may have been asked by another node.
    pub fn paid(&self, asked: &Asked) {
        let mut owed = self.owed.lock();
        let debt = owed.0.iter_mut().find(|debt| debt.serial == asked.serial);
        if let Some(debt) = debt {
            debt.paid = Some(Instant::now());
        }
    }

    /// Whether no answer to this has come yet, and its call goes on.
    pub(crate) fn owes(&self, asked: &Asked) -> bool {
        let owed = self.owed.lock();
        let mut debts = owed.0.iter();
        debts.any(|debt| debt.serial == asked.serial && debt.paid.is_none())
    }

    /// On whom a call waits.
    #[must_use]
    pub fn waits(&self, call: CallId) -> Waits {
        let owed = self.owed.lock();
        let mut last = None;
        for debt in owed.0.iter().filter(|debt| debt.call == call) {
            match debt.paid {
                None => return Waits::Client,
                paid => last = last.max(paid),
            }
        }
        Waits::Backend(last)
    }

    /// Forgets what is owed to a call, which has ended.
    pub fn settle(&self, call: CallId) {
        self.owed.lock().0.retain(|debt| debt.call != call);
    }

    fn owe(&self, call: CallId, serial: String) -> Result<(), Unasked> {
        let mut owed = self.owed.lock();
        if owed.0.len() >= MOST {
            // Those that are paid only tell when.
            owed.0.retain(|debt| debt.paid.is_none());
        }
        if owed.0.len() >= MOST {
            return Err(Unasked::TooMany);
        }
        owed.0.push(Debt {
            call,
            serial,
            paid: None,
        });
        Ok(())
    }

    /// Whether the client has declared what this request needs. Of methods that are not
    /// the protocol's nothing is known: the client answers for itself.
    pub(crate) fn has_declared(&self, method: &[u8]) -> bool {
        let needed = match method {
            b"sampling/createMessage" => "sampling",
            b"elicitation/create" => "elicitation",
            b"roots/list" => "roots",
            _ => return true,
        };
        let declared = &self.capabilities;
        envelope::member(declared, Span::new(0, declared.len()), needed)
            .is_some_and(|value| value.of(declared) != b"null")
    }

    fn has_declared_mode(&self, request: &[u8], message: &Message) -> bool {
        let mode = message
            .params
            .and_then(|params| envelope::member(request, params, "mode"));
        let mode = mode.and_then(|mode| envelope::string_value(request, mode));
        elicits(&self.capabilities, mode.as_deref().unwrap_or("form"))
    }
}

/// Whether a client of these capabilities, a JSON text, can be asked in this mode of
/// elicitation. No mode at all means forms (2025-11-25, Elicitation: Capabilities).
pub(crate) fn elicits(capabilities: &[u8], mode: &str) -> bool {
    let whole = Span::new(0, capabilities.len());
    let Some(elicitation) = envelope::member(capabilities, whole, "elicitation") else {
        return false;
    };
    let has = |mode: &str| {
        let declared = envelope::member(capabilities, elicitation, mode);
        declared.is_some_and(|declared| declared.of(capabilities) != b"null")
    };
    has(mode) || mode == "form" && !has("url")
}

#[cfg(test)]
mod tests;
