//! Clients that call without pause and without retries: one that fails has failed the test.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{client::Client, wait::until};

/// Running clients. They stop when this value is dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Starts calling `echo` of these backends, which answer with their name and the text (see
    /// [`Server::echo`](crate::backend::server::Server::echo)); a backend for each client, in turn.
    #[must_use]
    pub fn start(clients: Vec<Client>, backends: &'static [&'static str]) -> Self {
        let (stop, answered) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let run = |(index, client): (usize, Client)| {
            let backend = backends[index % backends.len()];
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                let done = call(client, index, backend, &stop, &answered).await;
                done.with_context(|| format!("client {index} at {backend}"))
            })
        };
        let clients = clients.into_iter().enumerate().map(run).collect();
        Self {
            stop,
            answered,
            clients,
        }
    }

    /// Waits until so many more calls have been answered.
    ///
    /// # Errors
    /// A client has failed, or nothing moves.
    pub async fn goes_on(&self, calls: u64) -> Result<()> {
        let goal = self.answered.load(Relaxed) + calls;
        let over = || self.clients.iter().any(JoinHandle::is_finished);
        let moved = until("more answered calls", || async {
            (self.answered.load(Relaxed) >= goal || over()).then(|| !over())
        });
        ensure!(moved.await?, "a client of the load has failed");
        Ok(())
    }

    /// Stops and gives the number of calls, each of which was answered.
    ///
    /// # Errors
    /// Those of the first call that failed, and how many clients have failed.
    pub async fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Relaxed);
        let mut failures = Vec::new();
        for client in self.clients.drain(..) {
            if let Err(error) = client.await? {
                failures.push(format!("{error:#}"));
            }
        }
        let calls = self.answered.load(Relaxed);
        if !failures.is_empty() {
            bail!(
                "{} clients failed, {calls} calls were answered:\n{}",
                failures.len(),
                failures.join("\n")
            );
        }
        Ok(calls)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for client in &self.clients {
            client.abort();
        }
    }
}

async fn call(
    mut client: Client,
    index: usize,
    backend: &str,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> Result<()> {
    let tool = format!("{backend}__echo");
    let mut turn = 0;
    while !stop.load(Relaxed) {
        let text = format!("{index}-{turn}");
        let answer = client.text(&tool, json!({"text": text})).await;
        let answer = answer.with_context(|| format!("call {turn}"))?;
        ensure!(
            answer == format!("{backend}:{text}"),
            "asked {text}, answered {answer}"
        );
        answered.fetch_add(1, Relaxed);
        turn += 1;
    }
    Ok(())
}
