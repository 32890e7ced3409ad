//! Starting and stopping a control plane and a data plane in this process,
//! joined by the same stream as in a fleet of many.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use mcp_controlplane::ControlPlane;
use mcp_dataplane::{
    DataPlane,
    settings::{Allow, Credentials, Guard, Settings, Source},
};

use super::{Flags, places::Places};
use crate::{
    client::{self, Client},
    failure::Failure,
};

/// Longest time until the first configuration is served.
const START: Duration = Duration::from_secs(30);

/// The control plane, and a client of it.
pub(crate) struct Control {
    plane: ControlPlane,
    url: String,
    token: String,
    pub(crate) client: Client,
}

impl Control {
    /// Starts it and connects to it.
    ///
    /// # Errors
    /// It cannot start, or cannot be reached.
    pub(crate) async fn start(flags: &Flags, places: &Places) -> Result<Self, Failure> {
        let settings = mcp_controlplane::Settings {
            grpc_listen: flags.grpc_listen,
            database: places.database().into(),
            insecure: flags.insecure,
            ..mcp_controlplane::Settings::default()
        };
        let plane = mcp_controlplane::start(settings).await.map_err(|e| {
            Failure::Other(anyhow::Error::new(e).context("cannot start the control plane"))
        })?;
        let token = plane.issue_admin_token().await.map_err(|e| {
            Failure::Other(anyhow::Error::new(e).context("cannot make an admin token"))
        })?;
        let url = format!("http://{}", plane.grpc_addr());
        let client = client::connect(&client::ControlPlane {
            url: url.clone(),
            token: token.clone(),
            ca: None,
            insecure: flags.insecure,
        })
        .await?;
        Ok(Self {
            plane,
            url,
            token,
            client,
        })
    }

    /// Its address for `mcpctl`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// An admin token for `mcpctl`.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Starts a data plane of this control plane and waits until it serves.
    ///
    /// # Errors
    /// It cannot start, or gets no configuration.
    pub(crate) async fn start_data_plane(
        &self,
        flags: &Flags,
        places: &Places,
    ) -> Result<DataPlane, Failure> {
        let token = self.plane.issue_node_token().await.map_err(|e| {
            Failure::Other(anyhow::Error::new(e).context("cannot make a node token"))
        })?;
        let own_dir = std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.parent()?.to_owned()));
        let settings = Settings {
            listen: flags.listen,
            admin_listen: flags.admin_listen,
            insecure: flags.insecure,
            source: Source::ControlPlane {
                urls: vec![self.url.clone()],
                credentials: Credentials::node_token(token),
            },
            node_id: "local".to_owned(),
            data_dir: Some(places.dir().to_owned()),
            // The control plane is in this process, and has it all.
            last_good: false,
            // The file is the user's own.
            allow: Allow::ALL,
            guard: Guard::CurrentExe,
            // `command: mcpctl` works without an installation.
            extra_path: own_dir.into_iter().collect(),
            // No balancer has to be told first.
            drain: Duration::ZERO,
            ..Settings::default()
        };
        let plane = mcp_dataplane::start(settings).await.map_err(|e| {
            Failure::Other(anyhow::Error::new(e).context("cannot start the data plane"))
        })?;
        match tokio::time::timeout(START, plane.ready()).await {
            Ok(()) => Ok(plane),
            Err(_) => {
                plane.shutdown().await;
                Err(Failure::TimedOut(format!(
                    "the data plane got no configuration within {} s; start again with --log info to see why",
                    START.as_secs()
                )))
            }
        }
    }

    /// Stops it.
    pub(crate) async fn shutdown(self) {
        drop(self.client);
        self.plane.shutdown().await;
    }
}

/// Checks that the ports are free, so that the message can name the flag.
///
/// # Errors
/// One of them is taken, or the address is not of this machine.
pub(crate) fn check_free(flags: &Flags) -> Result<(), Failure> {
    let listeners = [
        ("--listen", flags.listen),
        ("--admin-listen", flags.admin_listen),
        ("--grpc-listen", flags.grpc_listen),
    ];
    for (flag, address) in listeners {
        free(address).map_err(|e| {
            Failure::other(match e.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "{address} is in use: stop what listens there (another `mcpctl up`?), or choose another address with {flag}"
                ),
                _ => format!("cannot listen on {address}: {e}; choose another address with {flag}"),
            })
        })?;
    }
    Ok(())
}

fn free(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let flags = Flags {
            file: "x.yaml".into(),
            data_dir: None,
            listen: any,
            admin_listen: taken.local_addr().unwrap(),
            grpc_listen: any,
            insecure: false,
        };
        let error = check_free(&flags).unwrap_err().to_string();
        assert!(
            error.contains("is in use") && error.contains("--admin-listen"),
            "{error}"
        );
    }
}
