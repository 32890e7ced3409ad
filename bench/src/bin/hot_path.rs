//! A data plane with one worker and nothing else going on, for [`fleet_bench::guard`] to count the
//! instructions of: no discovery, no admin listener, no file that is watched.
//!
//! Prints its address; then every line on stdin is a mark in the count, answered with `marked`.

use std::{
    io::{self, BufRead, Write},
    net::SocketAddr,
    sync::Arc,
};

use anyhow::{Context, Result, anyhow};
use fleet_proto::read::{Documents, read_yaml};
use mcp_dataplane::{
    node::Node,
    peer::Peers,
    sealed::KeyRing,
    session::Sessions,
    settings::Settings,
    table::{
        RouteTable,
        compile::{Version, compile},
    },
    worker::Workers,
};
use tokio::net::TcpListener;

/// As in `mcp-dataplane`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let backend: SocketAddr = args.next().context("BACKEND COUNT")?.parse()?;
    let count: usize = args.next().context("BACKEND COUNT")?.parse()?;
    let background = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let node = Arc::new(Node::new(
        Settings::default(),
        None,
        1,
        Sessions::new(KeyRing::of(&[[7; 32]])),
        Peers::none("bench"),
        background.handle().clone(),
    ));
    // Whoever wants to discover ends at once.
    node.discoveries.close();
    node.table.store(Arc::new(table(&node, backend, count)?));
    let workers = Workers::start(&node)?;
    let listener = background.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let address = listener.local_addr()?;
    let accept = workers.accept(listener);
    let acceptor = std::thread::spawn(move || background.block_on(accept));
    println!("listening {address}");
    io::stdout().flush()?;
    for line in io::stdin().lock().lines() {
        mark(&line?);
        println!("marked");
        io::stdout().flush()?;
    }
    workers.close();
    workers.stop();
    acceptor
        .join()
        .map_err(|_| anyhow!("the acceptor has panicked"))
}

/// What was counted so far ends here (`--dump-before`).
#[inline(never)]
fn mark(line: &str) {
    std::hint::black_box(line);
}

fn table(node: &Arc<Node>, backend: SocketAddr, count: usize) -> Result<RouteTable> {
    let documents: Vec<_> = (0..count)
        .map(|n| {
            format!(
                "kind: Backend\nname: server-{n:05}\nhttp: {{ url: \"http://{backend}/{n}\" }}\n"
            )
        })
        .collect();
    let mut read = Documents::default();
    read_yaml("hot_path", &documents.join("---\n"), &mut read);
    let (_, set) = read.check().map_err(|problems| anyhow!("{problems:?}"))?;
    Ok(compile(
        node,
        Version::default(),
        &set,
        &RouteTable::default(),
    ))
}
