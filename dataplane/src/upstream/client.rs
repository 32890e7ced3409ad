//! What a session of a client has to do with a backend beside calls: notifications,
//! answers, and what the backend says unasked.

use std::sync::Arc;

use bytes::Bytes;

use super::Upstream;
use crate::{
    call::WorkerId,
    error::CallError,
    session::{Session, asked::Via},
};

impl Upstream {
    /// Gives a backend the answer to what it has asked, or its progress.
    ///
    /// # Errors
    /// It is another one than that which asked, or does not take it.
    pub async fn deliver(&self, worker: WorkerId, to: &Via, body: Bytes) -> Result<(), CallError> {
        match self {
            Self::Http(http) => http.deliver(worker, to, body).await,
            Self::Duplex(duplex) => match to {
                Via::Child { child } if duplex.duplex().deliver(child, &body) => Ok(()),
                _ => Err(CallError::Gone {
                    backend: duplex.duplex().name().to_owned(),
                    reason: "it is another one than that which asked".to_owned(),
                }),
            },
            Self::Broken(error) => Err(CallError::clone(error)),
        }
    }

    /// Gives a backend a notification of a client, in the upstream session of the client.
    /// A backend that it has no session at does not know the client, and is told nothing.
    pub async fn tell(&self, worker: WorkerId, session: &Session, serial: u64, body: Bytes) {
        let told = match self {
            Self::Http(http) => match session.live(serial) {
                Some(live) => http.notify(worker, &live, body).await,
                None => Ok(()),
            },
            Self::Duplex(duplex) => {
                duplex.tell(session, body).await;
                Ok(())
            }
            Self::Broken(_) => Ok(()),
        };
        if let Err(error) = told {
            tracing::debug!(%error, "a notification of a client was not passed on");
        }
    }

    /// Begins to listen to what a backend says outside of calls, where the client has an
    /// upstream session at it. Backends that it meets later are listened to from then on.
    pub fn listen(&self, worker: WorkerId, session: &Arc<Session>, serial: u64) {
        if let Self::Http(http) = self
            && session.live(serial).is_some()
        {
            http.listen(worker, session, &session.upstream(serial));
        }
    }
}
