//! [`Patience`]: an answer over HTTP/2 whose client takes nothing of it is given up.
//!
//! A connection carries many answers, and that one is not taken is no fault of the others: a
//! client, or a balancer for many of them, has a window for each (RFC 9113, section 5.2). hyper
//! asks a body for more only when the window has room for what it had before. So who was asked
//! last tells whom a stream waits for: a body that has given something and is not asked again
//! waits for its client. Answers go in small [`Pieces`], so that little lies in a window's queue.

use std::{
    cell::Cell,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Sleep, sleep};

use crate::body::{Body, Broken};

/// Longest piece of an answer: that of a frame, where a client says nothing else.
const PIECE: usize = 16 << 10;

thread_local! {
    /// Whom the stream that is polled now waits for, where its body was asked.
    static ASKED: Cell<Option<For>> = const { Cell::new(None) };
}

/// Whom a stream waits for.
#[derive(Clone, Copy)]
enum For {
    Client,
    Answer,
}

/// Runs streams, each until its client has taken nothing for this long.
#[derive(Clone, Copy)]
pub(super) struct Patience(pub(super) Duration);

/// A body that is sent in pieces, and says whom its stream waits for.
pub(super) struct Pieces {
    body: Body,
    rest: Bytes,
}

impl Pieces {
    pub(super) fn of(response: Response<Body>) -> Response<Self> {
        response.map(|body| Self {
            body,
            rest: Bytes::new(),
        })
    }
}

impl<F> Executor<F> for Patience
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(run(stream, self.0));
    }
}

/// Dropped, a stream is reset.
async fn run(stream: impl Future<Output = ()>, patience: Duration) {
    let mut stream = pin!(stream);
    let mut until = pin!(None::<Sleep>);
    std::future::poll_fn(|cx| {
        ASKED.set(None);
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match ASKED.take() {
            Some(For::Client) => until.set(Some(sleep(patience))),
            Some(For::Answer) => until.set(None),
            None => {}
        }
        let Some(late) = until.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        ready!(late.poll(cx));
        tracing::debug!("a client that does not read has lost its stream");
        Poll::Ready(())
    })
    .await;
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.rest.is_empty() {
            ASKED.set(Some(For::Answer));
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
        }
        ASKED.set(Some(For::Client));
        let length = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, of_body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use futures_util::stream;
    use http::Request;
    use http_body::Body as _;
    use http_body_util::{BodyExt, Empty};
    use hyper::{
        body::Incoming, client::conn::http2 as client, server::conn::http2 as server,
        service::service_fn,
    };
    use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
    use tokio::{io::duplex, sync::mpsc, time::Instant};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(75);

    /// Asks for answers without an end, of 1000 bytes at a time over windows of as many; and what
    /// tells when one is given up.
    async fn answers() -> (client::SendRequest<Empty<Bytes>>, mpsc::Receiver<()>) {
        let (own, its) = duplex(1 << 16);
        let (under_way, given_up) = mpsc::channel::<()>(8);
        let under_way = Arc::new(under_way);
        let service = service_fn(move |request: Request<Incoming>| {
            let under_way = under_way.clone();
            let is_silent = request.uri().path() == "/silent";
            async move {
                let dropped = Dropped(under_way);
                let frames = stream::unfold(dropped, move |dropped| async move {
                    if is_silent {
                        std::future::pending::<()>().await;
                    }
                    Some((Bytes::from_static(&[7; 1000]), dropped))
                });
                let body = Body::frames(Box::pin(frames));
                Ok::<_, Infallible>(Pieces::of(Response::new(body)))
            }
        });
        tokio::spawn(
            server::Builder::new(Patience(LIMIT))
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(own), service),
        );
        let connected = client::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1000)
            .handshake(TokioIo::new(its))
            .await;
        let (asks, connection) = connected.unwrap();
        tokio::spawn(connection);
        (asks, given_up)
    }

    struct Dropped(Arc<mpsc::Sender<()>>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }

    fn ask(path: &str) -> Request<Empty<Bytes>> {
        let uri = format!("http://a{path}");
        Request::builder().uri(uri).body(Empty::new()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_which_nothing_is_taken_is_given_up_and_the_others_stay() {
        let (mut asks, mut given_up) = answers().await;
        let start = Instant::now();
        let mut untaken = asks.send_request(ask("/")).await.unwrap().into_body();
        let mut taken = asks.send_request(ask("/")).await.unwrap().into_body();
        let mut silent = asks.send_request(ask("/silent")).await.unwrap().into_body();
        let mut ticks = tokio::time::interval(LIMIT / 2);
        loop {
            tokio::select! {
                biased;
                given_up = given_up.recv() => break given_up.unwrap(),
                _ = ticks.tick() => {
                    assert!(start.elapsed() <= LIMIT, "it is kept");
                    taken.frame().await.unwrap().unwrap();
                }
            }
        }
        assert_eq!(start.elapsed(), LIMIT);
        for _ in 0..10 {
            ticks.tick().await;
            taken.frame().await.unwrap().unwrap();
        }
        assert!(given_up.try_recv().is_err(), "one that is silent, or slow");
        let more = tokio::time::timeout(LIMIT, silent.frame()).await;
        assert!(more.is_err(), "it is still to come");
        while let Some(Ok(_)) = untaken.frame().await {}
        assert!(asks.is_ready());
    }

    #[tokio::test]
    async fn an_answer_comes_whole_in_small_pieces() {
        let whole: Bytes = (0..100_000_u32).map(|n| n as u8).collect();
        let response = Pieces::of(Response::new(Body::whole(whole.clone())));
        let mut body = response.into_body();
        assert_eq!(body.size_hint().exact(), Some(100_000));
        let mut got = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() <= PIECE);
            got.extend_from_slice(&data);
            assert_eq!(body.is_end_stream(), got.len() == whole.len());
        }
        assert_eq!(got, whole);
    }
}
