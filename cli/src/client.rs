//! The way to a control plane: address, admin token, limits.

use std::{fmt, net::IpAddr, time::Duration};

use fleet_proto::v1::{
    config_service_client::ConfigServiceClient, identity_service_client::IdentityServiceClient,
    report_service_client::ReportServiceClient, security_service_client::SecurityServiceClient,
};
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::failure::Failure;

/// Largest message either way: 10,000 documents fit well.
const MAX_MESSAGE: usize = 64 << 20;

/// A client of a control plane's `ConfigService`.
pub(crate) type Client = ConfigServiceClient<InterceptedService<Channel, Bearer>>;

/// A client of a control plane's `ReportService`.
pub(crate) type Reports = ReportServiceClient<InterceptedService<Channel, Bearer>>;

/// A client of a control plane's `IdentityService`.
pub(crate) type Identity = IdentityServiceClient<InterceptedService<Channel, Bearer>>;

/// A client of its `SecurityService`.
pub(crate) type Security = SecurityServiceClient<InterceptedService<Channel, Bearer>>;

/// A control plane.
#[derive(Clone, Default)]
pub(crate) struct ControlPlane {
    /// Its gRPC address.
    pub(crate) url: String,
    /// A token for it.
    pub(crate) token: String,
    /// The authorities (PEM) that its certificate may come from; `None`: those of
    /// the system.
    pub(crate) ca: Option<String>,
    /// The token may cross the network unencrypted.
    pub(crate) insecure: bool,
}

/// Without the token.
impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Adds the admin token to every call.
#[derive(Clone)]
pub(crate) struct Bearer(AsciiMetadataValue);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Connects to a control plane.
///
/// # Errors
/// It cannot be reached, or the address or the token cannot be used.
pub(crate) async fn connect(target: &ControlPlane) -> Result<Client, Failure> {
    let (channel, bearer) = open(target).await?;
    Ok(ConfigServiceClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE))
}

/// Connects to a control plane, to read what its nodes report.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn reports(target: &ControlPlane) -> Result<Reports, Failure> {
    let (channel, bearer) = open(target).await?;
    let client = ReportServiceClient::with_interceptor(channel, bearer);
    Ok(client.max_decoding_message_size(MAX_MESSAGE))
}

/// Connects to a control plane, for what is about its nodes.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn identity(target: &ControlPlane) -> Result<Identity, Failure> {
    let (channel, bearer) = open(target).await?;
    Ok(IdentityServiceClient::with_interceptor(channel, bearer))
}

/// Connects to the part of a control plane that says what must stop working.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn security(target: &ControlPlane) -> Result<Security, Failure> {
    let (channel, bearer) = open(target).await?;
    Ok(SecurityServiceClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MAX_MESSAGE))
}

async fn open(target: &ControlPlane) -> Result<(Channel, Bearer), Failure> {
    let url = &target.url;
    let encrypted = url.starts_with("https://");
    if !encrypted && !url.starts_with("http://") {
        return Err(Failure::Usage(format!(
            "the control plane's address {url:?} must start with https:// or http://"
        )));
    }
    if !target.insecure && !is_private(url) {
        return Err(Failure::Usage(format!(
            "the token would cross the network unencrypted to {url}: use https://, or give --insecure if \
             that is meant"
        )));
    }
    let mut value =
        AsciiMetadataValue::try_from(format!("Bearer {}", target.token)).map_err(|_| {
            Failure::Usage("the admin token holds characters that no header can carry".to_owned())
        })?;
    value.set_sensitive(true);
    let mut endpoint = Endpoint::from_shared(url.clone()).map_err(|e| {
        Failure::Usage(format!(
            "the control plane's address {url:?} is not a URL: {e}"
        ))
    })?;
    if encrypted {
        let tls = match &target.ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        endpoint = endpoint.tls_config(tls).map_err(|e| {
            let why = anyhow::Error::new(e);
            Failure::Usage(format!("cannot use TLS for {url}: {why:#}"))
        })?;
    }
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(5))
        // Until the answer begins; a watch may go on for longer.
        .timeout(Duration::from_secs(60));
    let channel = endpoint.connect().await.map_err(|e| {
        let why = format!("{:#}", anyhow::Error::new(e));
        let hint = if why.contains("UnknownIssuer") {
            "name the authority of its certificate with --ca-file, or let `mcpctl login` do it"
        } else {
            "is it, or `mcpctl up`, running?"
        };
        Failure::Unreachable(format!(
            "cannot reach the control plane at {url}: {why}; {hint}"
        ))
    })?;
    Ok((channel, Bearer(value)))
}

/// Whether nobody on the way can read along.
fn is_private(url: &str) -> bool {
    let name = authority(url);
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let local = || match host.parse::<IpAddr>() {
        // Who calls the unspecified address calls this machine.
        Ok(address) => address.is_loopback() || address.is_unspecified(),
        Err(_) => host == "localhost",
    };
    url.starts_with("https://") || local()
}

/// `control.example.com:8182`.
pub(crate) fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_tls_keep_a_token_private() {
        for url in [
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost",
            "http://0.0.0.0:1",
            "https://c",
        ] {
            assert!(is_private(url), "{url}");
        }
        for url in [
            "http://c:1",
            "http://10.0.0.1:1",
            "http://127.0.0.1.evil.example:1",
        ] {
            assert!(!is_private(url), "{url}");
        }
    }

    #[tokio::test]
    async fn a_token_is_sent_unencrypted_only_where_that_is_said() {
        let mut target = ControlPlane {
            // RFC 5737: nobody is there.
            url: "http://192.0.2.1:1".to_owned(),
            ..ControlPlane::default()
        };
        let refused = connect(&target).await.err().unwrap();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("--insecure"), "{refused}");
        target.url = "http://127.0.0.1:1".to_owned();
        assert_eq!(connect(&target).await.err().unwrap().exit_code(), 8);
    }
}
