//! The load: connections that call without pause and check every answer.
//!
//! Not `wrk`: with a script that gives each call its own id and looks at each body, that is slower
//! than this (`fleet-bench loader` compares them).

pub mod check;
mod connection;
pub mod histogram;
mod request;
mod response;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

pub use connection::Line;
use connection::Seen;
use histogram::Histogram;
pub use request::TEXT;

/// How a client opens its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// `initialize` and a session for each connection, 2025-11-25.
    Legacy,
    /// Metadata on every request, 2026-07-28.
    Modern,
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "2025-11-25",
            Self::Modern => "2026-07-28",
        })
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A tool call with a small answer.
    Small,
    /// A tool call with an answer of 64 KiB.
    Large,
    /// `tools/list`, which is to have so many.
    List {
        /// Tools in the list.
        tools: usize,
    },
    /// A plain GET.
    File,
}

/// Something that can be called.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What tables call it.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Path of its MCP endpoint.
    pub path: String,
    /// Its name for the tool `echo` of the backend.
    pub tool: String,
    /// Bearer token.
    pub token: Option<String>,
}

impl Endpoint {
    /// An endpoint whose tool is `echo`.
    #[must_use]
    pub fn new(name: &str, address: SocketAddr, path: &str) -> Self {
        Self {
            name: name.to_owned(),
            address,
            path: path.to_owned(),
            tool: "echo".to_owned(),
            token: None,
        }
    }

    /// Its name for the tool `large` of the backend.
    #[must_use]
    pub fn large_tool(&self) -> String {
        self.tool.replace("echo", "large")
    }
}

/// What is to be called how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom.
    pub to: Endpoint,
    /// In which era.
    pub era: Era,
    /// For what.
    pub ask: Ask,
    /// On how many connections.
    pub connections: usize,
    /// From how many threads.
    pub threads: usize,
    /// Stop after so many calls.
    pub calls: Option<u64>,
}

impl Plan {
    /// A plan for `connections`, on at most two threads.
    #[must_use]
    pub fn new(to: &Endpoint, era: Era, ask: Ask, connections: usize) -> Self {
        Self {
            to: to.clone(),
            era,
            ask,
            connections,
            threads: connections.clamp(1, 2),
            calls: None,
        }
    }
}

/// How long the last calls may take once the load is over.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Warm,
    Measured,
    Over,
}

/// What all connections look at.
struct Shared {
    phase: AtomicU8,
    /// Calls that are left, where they are counted.
    left: Option<AtomicI64>,
}

impl Shared {
    fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Warm,
            1 => Phase::Measured,
            _ => Phase::Over,
        }
    }

    fn is_last(&self) -> bool {
        let left = self.left.as_ref();
        left.is_some_and(|left| left.fetch_sub(1, Relaxed) <= 1)
    }
}

/// What a load has seen.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Right answers a second.
    pub rate: f64,
    /// Their latencies.
    pub latencies: Histogram,
    /// Calls without a right answer.
    pub errors: u64,
    /// The first of these.
    pub first_error: Option<String>,
}

/// A running load.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Seen>>>,
    since: Instant,
}

impl Load {
    /// Starts calling; nothing is counted yet but errors.
    ///
    /// # Errors
    /// There are no threads.
    pub fn start(plan: &Plan) -> Result<Self> {
        let shared = Arc::new(Shared {
            phase: AtomicU8::new(0),
            left: plan.calls.map(|n| AtomicI64::new(n.cast_signed())),
        });
        let mut threads = Vec::new();
        for thread in 0..plan.threads {
            let mine = (plan.connections + plan.threads - 1 - thread) / plan.threads;
            let (plan, shared) = (Arc::new(plan.clone()), Arc::clone(&shared));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let run = move || runtime.block_on(thread_of(mine, plan, shared));
            threads.push(std::thread::Builder::new().name("load".into()).spawn(run)?);
        }
        Ok(Self {
            shared,
            threads,
            since: Instant::now(),
        })
    }

    /// Counts from now on.
    pub fn measure(&mut self) {
        self.since = Instant::now();
        self.shared.phase.store(1, Relaxed);
    }

    /// Stops, and gives what was seen since [`measure`](Self::measure).
    ///
    /// # Errors
    /// A thread has panicked.
    pub fn stop(self) -> Result<Outcome> {
        let took = self.since.elapsed();
        self.shared.phase.store(2, Relaxed);
        self.gather().map(|seen| Outcome::of(seen, took))
    }

    /// Waits for the end of a load whose calls are counted.
    ///
    /// # Errors
    /// A thread has panicked.
    pub fn finish(self) -> Result<Outcome> {
        let since = self.since;
        self.gather().map(|seen| Outcome::of(seen, since.elapsed()))
    }

    fn gather(self) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for thread in self.threads {
            seen.extend(
                thread
                    .join()
                    .map_err(|_| anyhow!("the load has panicked"))?,
            );
        }
        Ok(seen)
    }
}

/// The connections of one thread.
async fn thread_of(connections: usize, plan: Arc<Plan>, shared: Arc<Shared>) -> Vec<Seen> {
    let all: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(connection::run(plan.clone(), shared.clone())))
        .collect();
    let handles: Vec<_> = all
        .iter()
        .map(tokio::task::JoinHandle::abort_handle)
        .collect();
    // A call that is never answered must not keep the rest.
    let hung_up = tokio::spawn(async move {
        while shared.phase() != Phase::Over {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(PATIENCE).await;
        handles.iter().for_each(tokio::task::AbortHandle::abort);
    });
    let mut seen = Vec::new();
    for one in all {
        seen.push(one.await.unwrap_or_else(|_| Seen {
            errors: 1,
            first_error: Some(format!("no answer within {PATIENCE:?} of the end")),
            ..Seen::default()
        }));
    }
    hung_up.abort();
    seen
}

impl Outcome {
    fn of(seen: Vec<Seen>, took: Duration) -> Self {
        let mut outcome = Self::default();
        for one in seen {
            outcome.latencies.add(&one.latencies);
            outcome.errors += one.errors;
            outcome.first_error = outcome.first_error.or(one.first_error);
        }
        outcome.rate = outcome.latencies.total() as f64 / took.as_secs_f64();
        outcome
    }
}

/// Makes single calls until one is answered rightly: the endpoint is up then.
///
/// # Errors
/// It is not, for so long.
pub fn wait_for(to: &Endpoint, era: Era, ask: &Ask, patience: Duration) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let until = Instant::now() + patience;
    loop {
        let attempt = runtime.block_on(async {
            let call = async {
                let mut line = Line::open(to, era, ask).await?;
                line.next_call(&mut check::Check::default(), ask).await
            };
            tokio::time::timeout(Duration::from_secs(10), call).await?
        });
        match attempt {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > until => {
                return Err(error).with_context(|| format!("{} does not answer ({era})", to.name));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A small call for another load generator: its headers, and its body before and after the id.
#[must_use]
pub fn call_parts(to: &Endpoint, era: Era) -> (Vec<(&'static str, String)>, String, String) {
    let parts = request::parts(to, era, &Ask::Small);
    (parts.headers, parts.front, parts.back)
}
