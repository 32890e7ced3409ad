//! Greets a server over a new connection, and learns its era (2026-07-28, stdio, "Backward
//! Compatibility").
//!
//! A modern server answers the probe `server/discover`; whoever gives an unknown error, or
//! nothing for a while, is offered `initialize`. A server that is slow to start (a package
//! runner that downloads first) may answer the probe after that: the probe is listened to
//! until `initialize` has been answered.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::time::timeout;

use super::{DuplexError, Hello, link::Link};
use crate::{call::Era, envelope, upstream::message::logs};

/// Silence after which a server is taken to be legacy.
const PROBE: Duration = Duration::from_secs(5);
/// How long a server may take to answer `initialize`; it may have to be downloaded first.
const INITIALIZE: Duration = Duration::from_secs(60);
/// The modern version spoken here.
const MODERN: &str = "2026-07-28";
/// The legacy versions spoken here, best first.
const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// Codes that only modern servers give (2026-07-28, "Error Codes").
const MODERN_ERRORS: std::ops::RangeInclusive<i64> = -32_022..=-32_020;

/// The answer to a probe.
enum Probed {
    Modern(Hello),
    /// Offer `initialize` with this version.
    Legacy(&'static str),
}

/// A result, or an error's code and message.
type Outcome = Result<Bytes, Refusal>;

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
    data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Discovered {
    #[serde(rename = "supportedVersions")]
    supported: Vec<String>,
}

#[derive(Deserialize)]
struct Unsupported {
    supported: Vec<String>,
}

#[derive(Deserialize)]
struct Initialized {
    #[serde(rename = "protocolVersion")]
    version: String,
}

/// Greets the server. `legacy`: it was when it was last started, so the probe is saved.
pub(super) async fn greet(link: &Arc<Link>, legacy: bool) -> Result<Hello, DuplexError> {
    if legacy {
        let outcome = initialize(link, LEGACY[0]).await?;
        if outcome.is_ok() {
            return settled(link, outcome).await;
        }
        // It is another server now, it seems.
    }
    let mut probe = pin!(ask(link, "server/discover", discover_params()));
    let offered = match timeout(PROBE, &mut probe).await {
        Ok(outcome) => match probed(outcome?)? {
            Probed::Modern(hello) => return Ok(hello),
            Probed::Legacy(version) => {
                return settled(link, initialize(link, version).await?).await;
            }
        },
        Err(_) => LEGACY[0],
    };
    let mut initialize = pin!(initialize(link, offered));
    tokio::select! {
        biased;
        late = &mut probe => match probed(late?)? {
            // Whether it takes `initialize` as well decides: if it does, that is now settled.
            Probed::Modern(hello) => match timeout(PROBE, initialize).await {
                Ok(Ok(outcome @ Ok(_))) => settled(link, outcome).await,
                _ => Ok(hello),
            },
            Probed::Legacy(_) => settled(link, initialize.await?).await,
        },
        outcome = &mut initialize => settled(link, outcome?).await,
    }
}

async fn initialize(link: &Arc<Link>, version: &str) -> Result<Outcome, DuplexError> {
    let params = json!({
        "protocolVersion": version,
        // Many clients share the connection. What one of them cannot be asked is refused.
        "capabilities": {"elicitation": {"form": {}, "url": {}}, "roots": {}, "sampling": {}},
        "clientInfo": client_info(),
    });
    timeout(INITIALIZE, ask(link, "initialize", params))
        .await
        .unwrap_or_else(|_| {
            let waited = INITIALIZE.as_secs();
            Err(DuplexError::Handshake {
                reason: format!("no answer to initialize within {waited} s"),
            })
        })
}

/// Concludes with a legacy server.
async fn settled(link: &Arc<Link>, initialized: Outcome) -> Result<Hello, DuplexError> {
    let result = initialized.map_err(|Refusal { code, message, .. }| DuplexError::Handshake {
        reason: format!("initialize was refused with error {code}: {message}"),
    })?;
    let Initialized { version } =
        serde_json::from_slice(&result).map_err(|error| DuplexError::Handshake {
            reason: format!("the answer to initialize is not one: {error}"),
        })?;
    if !LEGACY.contains(&version.as_str()) {
        return Err(DuplexError::Version { supported: version });
    }
    link.notify(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
        .await?;
    Ok(Hello {
        era: Era::Legacy,
        protocol_version: version,
        logs: logs::are_declared(&result),
        result,
    })
}

/// What the answer to a probe says about the server.
fn probed(outcome: Outcome) -> Result<Probed, DuplexError> {
    let (supported, result) = match outcome {
        Ok(result) => match serde_json::from_slice::<Discovered>(&result) {
            Ok(discovered) => (discovered.supported, result),
            Err(_) => return Ok(Probed::Legacy(LEGACY[0])),
        },
        Err(Refusal { code, data, .. }) if MODERN_ERRORS.contains(&code) => {
            let data = data.as_deref().map_or("null", RawValue::get);
            let supported = serde_json::from_str(data).map_or_else(
                |_| vec![MODERN.to_owned()],
                |Unsupported { supported }| supported,
            );
            (supported, Bytes::from_static(b"{}"))
        }
        Err(_) => return Ok(Probed::Legacy(LEGACY[0])),
    };
    if supported.iter().any(|version| version == MODERN) {
        let hello = Hello {
            era: Era::Modern,
            protocol_version: MODERN.to_owned(),
            result,
            logs: false,
        };
        return Ok(Probed::Modern(hello));
    }
    // It speaks both eras, and of the modern one other versions than we.
    let common = LEGACY
        .into_iter()
        .find(|ours| supported.iter().any(|theirs| theirs == ours));
    common
        .map(Probed::Legacy)
        .ok_or_else(|| DuplexError::Version {
            supported: supported.join(", "),
        })
}

fn client_info() -> serde_json::Value {
    json!({ "name": "mcp-fleet", "version": env!("CARGO_PKG_VERSION") })
}

fn discover_params() -> serde_json::Value {
    json!({ "_meta": {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": client_info(),
        "io.modelcontextprotocol/clientCapabilities": {},
    }})
}

/// Sends a request of our own and waits for what it gives.
async fn ask(
    link: &Arc<Link>,
    method: &str,
    params: serde_json::Value,
) -> Result<Outcome, DuplexError> {
    let response = link.ask(method, &params.to_string()).await?;
    let garbage = |reason: String| DuplexError::Handshake {
        reason: format!(
            "bad answer to {method}: {reason}: {}",
            link.excerpt(&response)
        ),
    };
    let message = envelope::scan(&response).map_err(|error| garbage(error.to_string()))?;
    match (message.result, message.error) {
        (Some(result), _) => Ok(Ok(Bytes::copy_from_slice(result.of(&response)))),
        (None, Some(error)) => serde_json::from_slice(error.of(&response))
            .map(Err)
            .map_err(|error| garbage(error.to_string())),
        (None, None) => Err(garbage("neither result nor error".to_owned())),
    }
}
