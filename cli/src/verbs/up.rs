//! `mcpctl up`: everything on one machine, from one file.
//!
//! [`places`] -> control plane ([`fleet`]) -> the file through the real API
//! ([`declare`]) -> data plane on the real stream -> [`hints`] -> [`watch`].

mod declare;
mod fleet;
mod hints;
mod places;
mod watch;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use mcp_dataplane::DataPlane;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    declare::{Declared, declare},
    fleet::Control,
    hints::Endpoint,
    places::Places,
    watch::Watch,
};
use crate::{
    args, change,
    context::{self, Context},
    failure::Failure,
    mcp, output,
    sources::{self, Source},
    wait,
};

/// Longest time to wait for the data plane to take a change.
const TAKE: Duration = Duration::from_secs(10);
/// Longest time to look for a tool to suggest.
const LOOK: Duration = Duration::from_secs(5);

/// The name of the context that `up` writes.
const CONTEXT: &str = "local";

/// Flags of `up`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// The configuration: a file, or a directory of files. It is watched, and is the truth for
    /// what it declares: a document that is removed from it is deleted.
    #[arg(short, long, value_name = "FILE|DIR")]
    file: PathBuf,
    /// Where the database is kept. Left out: `~/.local/share/mcp-fleet`.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where MCP clients connect; port 0: a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where `/readyz` and `/metrics` are served; port 0: a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9901")]
    admin_listen: SocketAddr,
    /// Where `mcpctl` reaches the control plane; port 0: a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8182")]
    grpc_listen: SocketAddr,
    /// Accept addresses beyond loopback although nothing is encrypted.
    #[arg(long)]
    insecure: bool,
}

/// Runs until it is told to stop.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    if flags.file == Path::new("-") {
        return Err(Failure::Usage(
            "up watches its file, which stdin is not: name one with -f FILE".to_owned(),
        ));
    }
    let mut signals = Signals::new()?;
    let sources = sources::read(std::slice::from_ref(&flags.file))?;
    let documents = sources::documents(&sources);
    sources::require_some(&documents, std::slice::from_ref(&flags.file))?;
    let places = Places::open(flags.data_dir.clone())?;
    fleet::check_free(&flags)?;
    let up = tokio::select! {
        up = Box::pin(Up::start(&flags, &places, &sources)) => up,
        () = signals.next() => return Ok(()),
    };
    let mut up = up?;
    let outcome = tokio::select! {
        outcome = Box::pin(up.serve(&flags, &places, &sources)) => outcome,
        () = signals.next() => {
            output::note("stopping; once more to stop at once");
            Ok(())
        }
    };
    tokio::select! {
        () = up.shutdown() => outcome,
        // What was asked for is to leave, whatever is still open.
        () = signals.next() => std::process::exit(130),
    }
}

/// A running fleet of one.
struct Up {
    control: Control,
    data: DataPlane,
    /// What was declared last.
    declared: Declared,
}

impl Up {
    async fn start(flags: &Flags, places: &Places, sources: &[Source]) -> Result<Self, Failure> {
        let mut control = Control::start(flags, places).await?;
        let started = async {
            let declared = declare(&mut control.client, places, &flags.file, sources).await?;
            let data = control.start_data_plane(flags, places).await?;
            Ok((declared, data))
        };
        match started.await {
            Ok((declared, data)) => Ok(Self {
                control,
                data,
                declared,
            }),
            Err(failure) => {
                control.shutdown().await;
                Err(failure)
            }
        }
    }

    /// Says where it is, then follows the file. Ends only by failing.
    async fn serve(
        &mut self,
        flags: &Flags,
        places: &Places,
        sources: &[Source],
    ) -> Result<(), Failure> {
        self.report_troubles().await;
        let mut endpoints = self.endpoints().await?;
        self.save_context(places, &endpoints)?;
        announce(places, &endpoints, self.declared.revision).await?;
        let mut watch = Watch::new(flags.file.clone(), sources);
        loop {
            let sources = watch.changed().await;
            match self.follow(flags, places, sources).await {
                Ok(()) => {
                    let now = self.endpoints().await?;
                    if now != endpoints {
                        self.save_context(places, &now)?;
                        output::data(&listed(&now))?;
                        endpoints = now;
                    }
                }
                Err(failure) => {
                    output::note(&failure.to_string());
                    output::note(&format!(
                        "{} is not applied; what was there before keeps serving",
                        flags.file.display()
                    ));
                }
            }
        }
    }

    /// Declares the file again.
    async fn follow(
        &mut self,
        flags: &Flags,
        places: &Places,
        sources: Result<Vec<Source>, Failure>,
    ) -> Result<(), Failure> {
        self.declared = declare(&mut self.control.client, places, &flags.file, &sources?).await?;
        if self.declared.changes.is_empty() {
            output::note(&format!("{} is as before", flags.file.display()));
            return Ok(());
        }
        for change in &self.declared.changes {
            output::note(&format!(
                "{} {}",
                change::name(change),
                change::verb(change.action())
            ));
        }
        self.report_troubles().await;
        Ok(())
    }

    /// Waits until the data plane has answered, and says what does not work.
    async fn report_troubles(&mut self) {
        let wanted = wait::Wanted {
            revision: self.declared.revision,
            secrets: self.declared.secrets_version,
            keys: Some(&self.declared.keys),
            percent: 100,
            timeout: TAKE,
            progress: false,
        };
        if let Err(failure) = wait::until_served(&mut self.control.client, wanted).await {
            output::note(&failure.to_string());
        }
    }

    async fn endpoints(&mut self) -> Result<Vec<Endpoint>, Failure> {
        let stored = change::stored(&mut self.control.client).await?;
        Ok(hints::endpoints(&stored, self.data.mcp_addr()))
    }

    fn save_context(&self, places: &Places, endpoints: &[Endpoint]) -> Result<(), Failure> {
        let context = Context {
            control_plane: Some(self.control.url().to_owned()),
            admin_token: Some(self.control.token().to_owned()),
            gateway: endpoints.first().map(|e| e.url.clone()),
            ca: None,
            insecure: false,
        };
        // The others stay.
        let mut contexts = args::read_contexts(places.context())?;
        contexts.put(CONTEXT, context);
        context::save(places.context(), &contexts).map_err(|e| Failure::other(e.to_string()))
    }

    async fn shutdown(self) {
        self.data.shutdown().await;
        self.control.shutdown().await;
    }
}

/// The endpoints and three commands to try.
async fn announce(places: &Places, endpoints: &[Endpoint], revision: u64) -> Result<(), Failure> {
    let Some(first) = endpoints.first() else {
        return Ok(());
    };
    let tools = if first.guarded {
        Vec::new()
    } else {
        offered(&first.url).await
    };
    let mut text = format!(
        "mcp-fleet is up, revision {revision}\n\n{}\nTry:\n",
        listed(endpoints)
    );
    for command in hints::commands(&hints::program(), first, &tools) {
        text.push_str(&format!("  {command}\n"));
    }
    output::data(&text)?;
    if places.context_is_hidden() {
        let path = places.context().display().to_string();
        output::note(&format!(
            "note: HOME is not set; first run: export {}={}",
            context::PATH_VARIABLE,
            output::shell_word(&path)
        ));
    }
    Ok(())
}

fn listed(endpoints: &[Endpoint]) -> String {
    let line = |e: &Endpoint| {
        format!(
            "  {}{}\n",
            e.url,
            if e.guarded {
                "  (asks for a token)"
            } else {
                ""
            }
        )
    };
    format!(
        "MCP endpoints:\n{}",
        endpoints.iter().map(line).collect::<String>()
    )
}

/// The tools of an endpoint, as soon as there are any: a stdio backend takes a
/// moment to start.
async fn offered(url: &str) -> Vec<Value> {
    let target = mcp::Target {
        url: url.to_owned(),
        token: None,
        protocol: mcp::Protocol::V20251125,
        limit: LOOK,
    };
    let look = async {
        let mut client = mcp::Client::connect(&target).await.ok()?;
        loop {
            let tools = client.list("tools/list", "tools").await.ok()?;
            if !tools.is_empty() {
                client.close().await;
                return Some(tools);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let tools = tokio::time::timeout(LOOK, look)
        .await
        .ok()
        .flatten()
        .unwrap_or_default();
    tools
        .iter()
        .filter_map(|tool| serde_json::from_str(tool.get()).ok())
        .collect()
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|e| Failure::other(format!("cannot listen for signals: {e}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
