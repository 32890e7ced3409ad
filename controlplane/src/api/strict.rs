//! Refuses requests with fields that this version does not know.
//!
//! On the config way between `auth` and the doors: prost drops unknown fields, so
//! that a newer client would be told that all is written when part of it is lost.
//! [`Strict`] therefore looks at the bytes of a request before they are decoded.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    mem,
    sync::LazyLock,
    task::{Context, Poll},
    time::Duration,
};

use fleet_proto::DESCRIPTORS;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use prost_reflect::{DescriptorPool, MessageDescriptor};
use tokio::time::timeout;
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

mod unknown;

pub(crate) use unknown::MOST;

/// A gRPC frame starts with a flag and a length (gRPC over HTTP/2, "Length-Prefixed-Message").
const FRAME_HEAD: usize = 5;

/// Longest time for a request to arrive.
const ARRIVAL: Duration = Duration::from_secs(60);

/// What each method takes, by its path.
static INPUTS: LazyLock<BTreeMap<String, MessageDescriptor>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("the build made them");
    let methods = pool.services().flat_map(|service| {
        let path = format!("/{}/", service.full_name());
        let inputs = service.methods().map(move |method| {
            let path = format!("{path}{}", method.name());
            (path, method.input())
        });
        inputs.collect::<Vec<_>>()
    });
    methods.collect()
});

/// Whether stored bytes of a `Resource` hold a field that this version does not
/// know: a newer one has written them, and writing them again would lose it.
pub(crate) fn is_newer(resource: &[u8]) -> bool {
    static RESOURCE: LazyLock<MessageDescriptor> = LazyLock::new(|| {
        let pool = DescriptorPool::decode(DESCRIPTORS).expect("the build made them");
        let resource = pool.get_message_by_name("fleet.v1.Resource");
        resource.expect("the contract has it")
    });
    unknown::find(&RESOURCE, resource).is_some()
}

/// A gRPC service whose requests are single messages without unknown fields.
#[derive(Clone)]
pub(crate) struct Strict<S> {
    inner: S,
    /// Bytes of the largest message.
    largest: usize,
    /// Longest time for it to arrive.
    arrival: Duration,
}

impl<S> Strict<S> {
    /// `largest` is the largest message in bytes: what is read before it is checked.
    pub(crate) fn new(inner: S, largest: usize) -> Self {
        Self {
            inner,
            largest,
            arrival: ARRIVAL,
        }
    }

    /// With another limit on how long a message may take to arrive.
    pub(crate) fn within(self, arrival: Duration) -> Self {
        Self { arrival, ..self }
    }
}

impl<S: NamedService> NamedService for Strict<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Strict<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(input) = INPUTS.get(request.uri().path()) else {
            // The service says that there is no such method.
            return Box::pin(self.inner.call(request));
        };
        let (largest, arrival) = (self.largest, self.arrival);
        // The one that is ready is called, its clone stays.
        let next = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let checked = timeout(arrival, checked(body, input, largest)).await;
            let late = |_| {
                Err(Status::deadline_exceeded(
                    "the request did not arrive in time",
                ))
            };
            match checked.unwrap_or_else(late) {
                Ok(body) => inner.call(Request::from_parts(head, body)).await,
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// The same body, read whole.
async fn checked(body: Body, input: &MessageDescriptor, largest: usize) -> Result<Body, Status> {
    let read = Limited::new(body, FRAME_HEAD + largest).collect().await;
    let bytes = match read {
        Ok(read) => read.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(Status::out_of_range(format!(
                "the request is larger than {largest} bytes: split it"
            )));
        }
        Err(error) => return Err(Status::from_error(error)),
    };
    match message(&bytes).and_then(|message| unknown::find(input, message)) {
        Some(unknown) => Err(Status::invalid_argument(unknown.to_string())),
        None => Ok(Body::new(Full::new(bytes))),
    }
}

/// The message in a frame. `None`: cut off or compressed, which the service refuses.
fn message(frame: &[u8]) -> Option<&[u8]> {
    let (head, rest) = frame.split_first_chunk::<FRAME_HEAD>()?;
    let [0, length @ ..] = head else { return None };
    rest.get(..u32::from_be_bytes(*length) as usize)
}
