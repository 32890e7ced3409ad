//! A TCP forwarder that can be cut: what a partition looks like from both sides.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// They arrive.
    Whole,
    /// Nothing arrives, and nobody is told.
    Silent,
    /// Connections are closed, those there are and new ones.
    Closed,
}

/// Forwards a port of its own until it is dropped.
pub struct Forwarder {
    addr: SocketAddr,
    wire: Arc<watch::Sender<Wire>>,
    _tasks: JoinSet<()>,
}

impl Forwarder {
    /// Forwards to this port of loopback.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let wire = Arc::new(watch::Sender::new(Wire::Whole));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, port, Arc::clone(&wire)));
        Ok(Self {
            addr,
            wire,
            _tasks: tasks,
        })
    }

    /// Its own port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Cuts the wire, or mends it.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

async fn accept(listener: TcpListener, port: u16, wire: Arc<watch::Sender<Wire>>) {
    let mut pumps = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        let wire = wire.subscribe();
        if *wire.borrow() == Wire::Closed {
            continue;
        }
        pumps.spawn(async move {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
                return;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = pump(from_client, to_server, wire.clone()) => {}
                () = pump(from_server, to_client, wire) => {}
            }
        });
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut wire: watch::Receiver<Wire>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            _ = wire.wait_for(|wire| *wire == Wire::Closed) => return,
            read = from.read(&mut buffer) => read,
        };
        let Ok(count @ 1..) = read else { return };
        let state = wire.wait_for(|wire| *wire != Wire::Silent).await;
        if !state.is_ok_and(|wire| *wire == Wire::Whole) {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
