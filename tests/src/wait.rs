//! Waiting for a condition, with a deadline. The deadline only ends a test that has gone wrong:
//! nothing is asserted about how long a condition took.

use std::{future::Future, time::Duration};

use anyhow::{Result, bail};
use tokio::time::Instant;

/// The patience with anything that should happen soon.
pub const SOON: Duration = Duration::from_secs(120);

/// Asks again and again until `condition` gives a value; fails after [`SOON`], naming `what`.
///
/// # Errors
/// The deadline has passed.
pub async fn until<T, F, Fut>(what: &str, mut condition: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(value) = condition().await {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {SOON:?} in vain: {what}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for `future`; fails after [`SOON`], naming `what`.
///
/// # Errors
/// The deadline has passed.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => Ok(value),
        Err(_) => bail!("waited {SOON:?} in vain: {what}"),
    }
}
