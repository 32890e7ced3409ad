//! The way to a control plane: address, admin token, limits.

use std::time::Duration;

use fleet_proto::v1::config_service_client::ConfigServiceClient;
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::failure::Failure;

/// Largest message either way: 10,000 documents fit well.
const MAX_MESSAGE: usize = 64 << 20;

/// A client of a control plane's `ConfigService`.
pub(crate) type Client = ConfigServiceClient<InterceptedService<Channel, Bearer>>;

/// A control plane.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlane {
    /// Its gRPC address.
    pub(crate) url: String,
    /// An admin token.
    pub(crate) token: String,
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
    let url = &target.url;
    if !url.starts_with("http://") {
        return Err(Failure::Usage(format!(
            "the control plane's address {url:?} must start with http://"
        )));
    }
    let mut value =
        AsciiMetadataValue::try_from(format!("Bearer {}", target.token)).map_err(|_| {
            Failure::Usage("the admin token holds characters that no header can carry".to_owned())
        })?;
    value.set_sensitive(true);
    let endpoint = Endpoint::from_shared(url.clone())
        .map_err(|e| {
            Failure::Usage(format!(
                "the control plane's address {url:?} is not a URL: {e}"
            ))
        })?
        .connect_timeout(Duration::from_secs(5))
        // Until the answer begins; a watch may go on for longer.
        .timeout(Duration::from_secs(60));
    let channel = endpoint.connect().await.map_err(|e| {
        let why = anyhow::Error::new(e);
        Failure::Unreachable(format!(
            "cannot reach the control plane at {url}: {why:#}; is it, or `mcpctl up`, running?"
        ))
    })?;
    Ok(
        ConfigServiceClient::with_interceptor(channel, Bearer(value))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE),
    )
}
