//! One HTTP request to the backend; redirects within its origin are followed.

use std::sync::Arc;

use bytes::Bytes;
use http::{StatusCode, Uri};

use super::{Http, Sent};
use crate::{
    call::WorkerId,
    error::CallError,
    upstream::pool::{Ask, SendError},
};

/// Redirects followed for one request; same origin only.
const REDIRECTS: usize = 3;
impl Http {
    /// Posts a message with the header lines that `lines` adds to those of every request;
    /// redirects within the origin are followed.
    pub(super) async fn post(
        &self,
        worker: WorkerId,
        lines: impl Fn(&mut Vec<u8>) + Sync,
        body: Bytes,
    ) -> Result<Sent, CallError> {
        let path = self.0.path.read().clone();
        let sent = self
            .send(worker, "POST", &path, &lines, body.clone())
            .await?;
        if is_redirect(&sent) {
            return Box::pin(self.follow(worker, sent, &lines, body)).await;
        }
        Ok(sent)
    }

    /// Follows redirects within the origin.
    async fn follow(
        &self,
        worker: WorkerId,
        mut sent: Sent,
        lines: &(dyn Fn(&mut Vec<u8>) + Sync),
        body: Bytes,
    ) -> Result<Sent, CallError> {
        let mut moved = true;
        for _ in 0..REDIRECTS {
            moved &= sent.head.status == StatusCode::PERMANENT_REDIRECT;
            let location = sent.head.get("location");
            let to = location.and_then(|l| self.same_origin(std::str::from_utf8(l).ok()?));
            let path = to.ok_or_else(|| {
                self.bad_answer("it redirects to another origin, which is never followed: set `url` to the final address")
            })?;
            sent = self
                .send(worker, "POST", &path, lines, body.clone())
                .await?;
            if !is_redirect(&sent) {
                if moved {
                    *self.0.path.write() = path;
                }
                return Ok(sent);
            }
        }
        Err(self.bad_answer("it redirects in circles"))
    }

    pub(super) async fn send(
        &self,
        worker: WorkerId,
        verb: &'static str,
        path: &str,
        lines: impl Fn(&mut Vec<u8>) + Sync,
        body: Bytes,
    ) -> Result<Sent, CallError> {
        let lines = |out: &mut Vec<u8>| {
            out.extend_from_slice(&self.0.lines);
            lines(out);
        };
        let ask = Ask {
            verb,
            path,
            lines: &lines,
            body,
        };
        match self.0.pool.send(worker, &ask).await {
            Ok((head, body)) => Ok(Sent { head, body }),
            Err(SendError::Broken(error)) => Err(self.unread(error)),
            Err(error @ SendError::Connect { .. }) => {
                let reason = "it cannot be reached";
                Err(CallError::unavailable(
                    &self.0.name,
                    reason,
                    error.to_string(),
                ))
            }
        }
    }

    /// The path of a redirect that stays within the origin.
    fn same_origin(&self, location: &str) -> Option<Arc<str>> {
        let uri: Uri = location.parse().ok()?;
        let same = match uri.authority() {
            // `//host/path` names another host.
            None => location.starts_with('/') && !location.starts_with("//"),
            Some(authority) => {
                let tls = uri.scheme_str() == Some("https");
                authority.as_str() == self.0.authority && tls == self.0.pool.is_tls()
            }
        };
        same.then(|| uri.path_and_query().map(|path| path.as_str().into()))
            .flatten()
    }
}

/// Only those that keep method and body can be followed.
fn is_redirect(sent: &Sent) -> bool {
    matches!(
        sent.head.status,
        StatusCode::PERMANENT_REDIRECT | StatusCode::TEMPORARY_REDIRECT
    )
}
