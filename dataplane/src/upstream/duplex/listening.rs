//! What a server says outside of calls, to who asks for it: `subscriptions/listen` over the
//! connection at one of the modern era, [`watched`](super::watched) resources at one of the
//! legacy era.

use bytes::Bytes;

use super::{Duplex, DuplexError, Incoming, Replies, Request, watched::Watching};
use crate::{
    call::Era,
    upstream::listening::{Wanted, acknowledgement},
};

/// Messages of a subscription. Dropped, it ends.
pub(crate) struct Listening {
    /// What is said first.
    first: Option<Bytes>,
    way: Way,
}

enum Way {
    Stream(Replies),
    Watching(Watching),
}

impl Listening {
    /// The next message; `None` at the end, whatever its reason.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        match &mut self.way {
            Way::Watching(watching) => watching.next().await,
            Way::Stream(replies) => match replies.next().await?.ok()? {
                Incoming::Notification(message) | Incoming::Response(message) => Some(message),
            },
        }
    }

    /// The server's error for a resource that it lets nobody watch, a JSON text.
    pub(crate) fn refusal(&self) -> Option<&Bytes> {
        match &self.way {
            Way::Watching(watching) => watching.refusal.as_ref(),
            Way::Stream(_) => None,
        }
    }
}

impl Duplex {
    /// Subscribes to what is wanted: at a server of the legacy era to the resources. `None`:
    /// there is nothing to subscribe to.
    ///
    /// # Errors
    /// [`DuplexError`] when there is no connection.
    pub(crate) async fn subscribe(
        &self,
        wanted: Wanted<'_>,
    ) -> Result<Option<Listening>, DuplexError> {
        let Wanted {
            meta,
            filter,
            uris,
            owner,
        } = wanted;
        let link = self.0.0.link().await?;
        match link.hello().era {
            Era::Modern => {
                let params = format!(r#"{{"_meta":{{{meta}}},"notifications":{filter}}}"#);
                let request = Request {
                    listens: true,
                    ..Request::own("subscriptions/listen", &params)
                };
                let replies = link.request(request, Some(self.0.clone())).await?;
                Ok(Some(Listening {
                    first: None,
                    way: Way::Stream(replies),
                }))
            }
            // Changes of its lists it announces to nobody in particular.
            Era::Legacy if uris.is_empty() => Ok(None),
            Era::Legacy => {
                let watching = link.watch(uris, owner).await?;
                let honoured: Vec<&str> = watching.honoured.iter().map(|uri| &**uri).collect();
                Ok(Some(Listening {
                    first: Some(acknowledgement(&honoured)),
                    way: Way::Watching(watching),
                }))
            }
        }
    }
}
