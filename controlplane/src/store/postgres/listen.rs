//! Hears `NOTIFY`, for as long as there is somebody to hear.

use std::{sync::Arc, time::Duration};

use sqlx::{Executor, PgPool, postgres::PgListener};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::NOTIFY;

/// After so long a silence the connection is tried: one that was cut off without
/// a word would be silent for ever.
const SILENCE: Duration = Duration::from_secs(15);
/// How long an answer to that may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two attempts to connect. The look each second goes on meanwhile.
const AGAIN: Duration = Duration::from_secs(1);

/// Wakes `heard` at every notification, and whenever one may have been missed.
pub(super) async fn listen(pool: PgPool, heard: Arc<Notify>) {
    while !pool.is_closed() {
        if let Err(error) = hear(&pool, &heard).await {
            tracing::debug!(%error, "notifications are not heard: connecting again");
        }
        sleep(AGAIN).await;
    }
}

async fn hear(pool: &PgPool, heard: &Notify) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(NOTIFY).await?;
    loop {
        heard.notify_one();
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(received) => received.map(drop)?,
            Err(_) => timeout(ANSWER, listener.execute("SELECT 1"))
                .await
                .map_err(|_| sqlx::Error::PoolTimedOut)?
                .map(drop)?,
        }
    }
}
