//! What the server says: whose it is.

use bytes::Bytes;

use super::{
    super::{DuplexError, Throttle, wire},
    Link,
    calls::Call,
};
use crate::{
    call::Era,
    envelope::{self, Kind, Message, Span},
    error::{INTERNAL_ERROR, error_message, result_message},
    session::asked::{Asker, Unasked, Via},
    upstream::message::{
        SUBSCRIPTION_ID,
        logs::{Logs, Severity, severity},
    },
};

impl Link {
    /// Takes a message of the server to whom it belongs.
    pub(in crate::upstream) fn take(&self, message: Bytes, throttle: &mut Throttle) {
        if let Err(problem) = self.incoming(message) {
            self.complain(problem, throttle);
        }
    }

    /// Logs what is wrong with a message.
    pub(in crate::upstream) fn complain(&self, problem: String, throttle: &mut Throttle) {
        if let Some(suppressed) = throttle.admit() {
            tracing::warn!(target: "mcp::upstream", backend = self.name, suppressed, "{problem}");
        }
    }

    fn incoming(&self, line: Bytes) -> Result<(), String> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let message = match envelope::scan(&line) {
            Ok(message) => message,
            Err(error) => {
                let reason = error.to_string();
                let what = format!("not a JSON-RPC message ({reason}): {}", self.excerpt(&line));
                // When it says whose answer it is meant to be, that caller need not wait on.
                if let Some(call) = error.id().and_then(|id| self.answered(id.of(&line))) {
                    let _ = call.response.send(Err(DuplexError::Garbage { reason }));
                }
                return Err(what);
            }
        };
        match message.kind {
            Kind::Response | Kind::Error => self.response(&line, &message),
            Kind::Notification => {
                self.notification(line, &message);
                Ok(())
            }
            Kind::Request => self.asked(&line, &message),
        }
    }

    fn response(&self, line: &Bytes, message: &Message) -> Result<(), String> {
        let call = message
            .id
            .and_then(|id| Some((id, self.answered(id.of(line))?)));
        let Some((id, call)) = call else {
            // Usually the answer to a call that has been cancelled, which may cross.
            tracing::debug!(
                backend = self.name,
                "answer to no call: {}",
                self.excerpt(line)
            );
            return Ok(());
        };
        if call.dropped > 0 {
            tracing::debug!(
                backend = self.name,
                dropped = call.dropped,
                "notifications dropped: the client reads too slowly"
            );
        }
        let restored = wire::splice(line, &mut [(id.range(), &call.id)]);
        let _ = call.response.send(Ok(restored.into()));
        Ok(())
    }

    fn answered(&self, id: &[u8]) -> Option<Call> {
        let key = key(id)?;
        let mut calls = self.calls.lock();
        let found = calls.in_flight.remove(&key);
        if found.is_none() {
            calls.left.retain(|left| left.key != key);
        }
        found
    }

    fn notification(&self, line: Bytes, message: &Message) {
        let method = message.method.map_or(&b""[..], |method| method.of(&line));
        let token = message.params_progress_token;
        if let (b"notifications/progress", Some(at)) = (method, token)
            && let Some(key) = key(at.of(&line))
        {
            // Progress that comes after the response belongs to nobody.
            if let Some(call) = self.calls.lock().in_flight.get_mut(&key)
                && let Some(notifications) = &call.notifications
            {
                let restored = wire::splice(&line, &mut [(at.range(), &call.token)]);
                if !notifications.offer(restored.into()) {
                    call.dropped += 1;
                }
            }
            return;
        }
        if let Some(key) = message.meta.and_then(|meta| subscription(&line, meta)) {
            if let Some(call) = self.calls.lock().in_flight.get_mut(&key)
                && let Some(to) = call.notifications.as_ref().filter(|_| call.listens)
                && !to.offer(line)
            {
                call.dropped += 1;
            }
            return;
        }
        if method == b"notifications/resources/updated" {
            let uri = message
                .uri
                .and_then(|uri| envelope::string_value(&line, uri));
            return self.watched.updated(&line, &uri.unwrap_or_default());
        }
        if method == b"notifications/message" {
            return self.log(line, message);
        }
        let method = String::from_utf8_lossy(method).into_owned();
        (self.on_notification)(&method, line);
    }

    /// A log message. The protocol does not say of which call it is: it is of the only one that
    /// the server has, or nobody's.
    fn log(&self, line: Bytes, message: &Message) {
        let is_modern = self.is_modern();
        let mut calls = self.calls.lock();
        let Some(call) = calls.only(is_modern) else {
            return;
        };
        let least = match (call.logs, self.level.get()) {
            (Logs::None, _) => return,
            (Logs::AtLeast(level), _) => Some(level),
            (Logs::Any, None) => None,
            // The server says more than it would by itself.
            (Logs::Any, Some(_)) => Some(Severity::INFO),
        };
        if severity(&line, message) >= least
            && let Some(to) = &call.notifications
            && !to.offer_log(line)
        {
            call.dropped += 1;
        }
    }

    fn is_modern(&self) -> bool {
        let hello = self.hello.get();
        hello.is_some_and(|hello| hello.era == Era::Modern)
    }

    /// A request of the server. `ping` is answered as it must be; all else is asked of the client
    /// whose call the server works on. To a modern server nothing may be answered, and it may not
    /// ask.
    fn asked(&self, line: &Bytes, message: &Message) -> Result<(), String> {
        let (Some(id), Some(method), false) = (message.id, message.method, self.is_modern()) else {
            return Err(format!(
                "request from the server ignored: {}",
                self.excerpt(line)
            ));
        };
        let id = id.of(line);
        let answer = match method.of(line) {
            b"ping" => result_message(id, b"{}"),
            _ => match self.ask_client(line, message) {
                Ok(()) => return Ok(()),
                Err((code, why)) => error_message(id, code, &why, None),
            },
        };
        self.answers
            .try_send(wire::line(answer.to_vec()))
            .map_err(|_| "request from the server ignored: it does not read the answers".to_owned())
    }

    /// Asks a client. The protocol does not say for which call the server asks: where several
    /// clients that could be meant wait for it, none of them is asked.
    fn ask_client(&self, line: &Bytes, message: &Message) -> Result<(), (i64, String)> {
        let method = message.method.map_or(&b""[..], |method| method.of(line));
        let mut calls = self.calls.lock();
        calls.forget_old();
        let mut able = calls.in_flight.iter().filter_map(|(key, call)| {
            let client = call.client.as_ref().filter(|_| call.sent)?;
            let able = client.session.has_declared(method);
            able.then_some((*key, client, call.notifications.as_ref()?))
        });
        let none = || {
            (
                Unasked::NotDeclared.code(),
                Unasked::NotDeclared.to_string(),
            )
        };
        let (mut key, mut client, mut to) = able.next().ok_or_else(none)?;
        for (other_key, other, others) in able {
            if other_key > key {
                (key, client, to) = (other_key, other, others);
            }
        }
        if calls.others_than(&client.session) {
            let what = "several clients are served: it cannot be told which one is asked";
            return Err((INTERNAL_ERROR, what.to_owned()));
        }
        let asker = Asker {
            backend: &self.name,
            via: Via::Child {
                child: self.nonce.clone(),
            },
            call: Some(client.call),
        };
        let failed = |why: &Unasked| (why.code(), why.to_string());
        let question = client.session.question(&asker, line, message);
        let question = question.map_err(|why| failed(&why))?;
        let is_taken = to.offer(question);
        is_taken
            .then_some(())
            .ok_or_else(|| failed(&Unasked::TooMany))
    }
}

/// The subscription that a notification is of.
fn subscription(line: &[u8], meta: Span) -> Option<u64> {
    let mut members = envelope::members(line, meta).filter_map(Result::ok);
    let (_, id) = members.find(|(name, _)| name == SUBSCRIPTION_ID)?;
    key(id.of(line))
}

/// The key that a server gives back as id or token. Only the text that was sent is taken:
/// `"7"`, `7.0` and `07` are none of ours.
fn key(text: &[u8]) -> Option<u64> {
    let key: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (text.first() != Some(&b'+') && (key == 0 || text.first() != Some(&b'0'))).then_some(key)
}
