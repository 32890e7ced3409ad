//! One connection of the load: a call, its answer checked, the next call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    Ask, Endpoint, Era, Phase, Plan, Shared, check::Check, histogram::Histogram, request::Request,
    response::Reader,
};

/// Ids that a connection takes at a time.
const BLOCK: u64 = 1 << 16;
/// Failures one after the other after which a connection gives up.
const GIVE_UP: u32 = 50;

/// Ids for the whole process: none is used twice.
static IDS: AtomicU64 = AtomicU64::new(0);

/// An id for a single call.
pub(super) fn one_id() -> u64 {
    IDS.fetch_add(1, Relaxed)
}

/// What a connection has seen in the measured time.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) latencies: Histogram,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
}

/// Calls until the load is stopped, or its calls are done.
pub(super) async fn run(plan: Arc<Plan>, shared: Arc<Shared>) -> Seen {
    let mut seen = Seen::default();
    let mut check = Check::default();
    let mut in_a_row = 0;
    while shared.phase() != Phase::Over && in_a_row < GIVE_UP {
        let before = seen.latencies.total();
        let Err(error) = calls(&plan, &shared, &mut check, &mut seen).await else {
            break;
        };
        in_a_row = if seen.latencies.total() > before {
            0
        } else {
            in_a_row + 1
        };
        seen.errors += 1;
        seen.first_error.get_or_insert_with(|| format!("{error:#}"));
    }
    seen
}

/// Calls on one TCP connection until the end or an error.
async fn calls(plan: &Plan, shared: &Shared, check: &mut Check, seen: &mut Seen) -> Result<()> {
    let mut line = Line::open(&plan.to, plan.era, &plan.ask).await?;
    let mut ids = 0..0;
    let mut begun = Instant::now();
    loop {
        let id = ids.next().unwrap_or_else(|| {
            let first = IDS.fetch_add(BLOCK, Relaxed);
            ids = first + 1..first + BLOCK;
            first
        });
        line.call(check, &plan.ask, id).await?;
        let now = Instant::now();
        match shared.phase() {
            Phase::Warm => {}
            Phase::Measured => {
                let nanos = now.duration_since(begun).as_nanos() as u64;
                seen.latencies.record(nanos);
            }
            Phase::Over => return Ok(()),
        }
        if shared.is_last() {
            return Ok(());
        }
        begun = now;
    }
}

/// A connection on which calls are made.
pub struct Line {
    stream: TcpStream,
    reader: Reader,
    request: Request,
}

impl Line {
    /// Connects and, in the legacy era, opens a session.
    ///
    /// # Errors
    /// One of these fails.
    pub async fn open(to: &Endpoint, era: Era, ask: &Ask) -> Result<Self> {
        let stream = TcpStream::connect(to.address).await?;
        stream.set_nodelay(true)?;
        let mut line = Self {
            stream,
            reader: Reader::default(),
            request: Request::new(to, era, ask, None),
        };
        if era == Era::Legacy && !matches!(ask, Ask::File) {
            let session = line.initialize(to).await.context("initialize")?;
            line.request = Request::new(to, era, ask, session.as_deref());
        }
        Ok(line)
    }

    async fn initialize(&mut self, to: &Endpoint) -> Result<Option<String>> {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"fleet-bench","version":"1"}}}"#;
        let session = self.once(Request::once(to, None, body)).await?;
        let body = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        self.once(Request::once(to, session.as_deref(), body))
            .await?;
        Ok(session)
    }

    async fn once(&mut self, mut request: Request) -> Result<Option<String>> {
        self.stream.write_all(request.with_id(0)).await?;
        let response = self.reader.read(&mut self.stream).await?;
        ensure!(response.status < 300, "status {}", response.status);
        self.reader.done(&response);
        Ok(response.session)
    }

    async fn call(&mut self, check: &mut Check, ask: &Ask, id: u64) -> Result<()> {
        self.stream.write_all(self.request.with_id(id)).await?;
        let response = self.reader.read(&mut self.stream).await?;
        let body = self.reader.body(&response);
        check.check(ask, id, response.status, response.events, body)?;
        ensure!(response.keeps, "the connection is not kept");
        self.reader.done(&response);
        Ok(())
    }

    /// Makes a call with an id of its own and checks its answer.
    ///
    /// # Errors
    /// There is none, or it is wrong.
    pub async fn next_call(&mut self, check: &mut Check, ask: &Ask) -> Result<()> {
        self.call(check, ask, one_id()).await
    }

    /// The body of the answer to one call, whatever it is.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn answer(&mut self) -> Result<Vec<u8>> {
        self.stream
            .write_all(self.request.with_id(one_id()))
            .await?;
        let response = self.reader.read(&mut self.stream).await?;
        let body = self.reader.body(&response).to_vec();
        self.reader.done(&response);
        Ok(body)
    }
}
