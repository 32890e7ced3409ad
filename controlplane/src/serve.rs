//! The gRPC doors and their guards, and TLS of both listeners.

use std::{convert::Infallible, sync::Arc, time::Duration};

use fleet_proto::v1::{
    config_service_server::ConfigServiceServer, fleet_identity_server::FleetIdentityServer,
    fleet_reports_server::FleetReportsServer, fleet_sync_server::FleetSyncServer,
    identity_service_server::IdentityServiceServer, report_service_server::ReportServiceServer,
    security_service_server::SecurityServiceServer,
};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::transport::Server;

use crate::{
    LARGEST_MESSAGE, Settings, StartError,
    api::{
        Api,
        auth::{Guarded, Role},
        grpc::{self, Grpc},
        strict::Strict,
    },
    identity::{
        Identities, IdentityError,
        enrol::{self, Enrol},
        guard::ForNodes,
    },
    listen::{
        Connection,
        tls::{NoTls, Shown},
    },
    reports,
    sync::Sync,
};

/// Calls and streams at once on one connection.
pub(crate) const CALLS: u32 = 256;
/// A connection without an answer to a ping for so long is dead.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(20);

/// Serves until the control plane stops: four services for people and CI, two for
/// nodes, and one for who is to become one.
pub(crate) async fn grpc(
    api: Arc<Api>,
    sync: Sync,
    reports: reports::stream::Server,
    incoming: mpsc::Receiver<Connection>,
    mut until: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let (tokens, identities) = (Arc::clone(&api.tokens), Arc::clone(&api.identities));
    let security = SecurityServiceServer::new(Grpc(Arc::clone(&api)));
    let identity = IdentityServiceServer::new(Grpc(Arc::clone(&api)));
    let told = ReportServiceServer::new(grpc::reports::Reports(Arc::clone(&api)))
        .max_encoding_message_size(LARGEST_MESSAGE);
    let config = ConfigServiceServer::new(Grpc(api))
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    let reports =
        FleetReportsServer::new(reports).max_decoding_message_size(reports::stream::LARGEST);
    let enrol = FleetIdentityServer::new(Enrol::new(Arc::clone(&identities)));
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(Some(CALLS))
        .add_service(Guarded::new(
            Strict::new(config, LARGEST_MESSAGE),
            Arc::clone(&tokens),
            Role::Admin,
        ))
        .add_service(Guarded::new(
            Strict::new(told, LARGEST_MESSAGE),
            Arc::clone(&tokens),
            Role::Admin,
        ))
        .add_service(Guarded::new(
            Strict::new(security, LARGEST_MESSAGE),
            Arc::clone(&tokens),
            Role::Admin,
        ))
        .add_service(Guarded::new(
            Strict::new(identity, enrol::LARGEST),
            tokens,
            Role::Admin,
        ))
        .add_service(Strict::new(enrol, enrol::LARGEST).within(enrol::PATIENCE))
        .add_service(ForNodes::new(
            FleetSyncServer::new(sync),
            Arc::clone(&identities),
        ))
        .add_service(ForNodes::new(reports, identities))
        .serve_with_incoming_shutdown(
            ReceiverStream::new(incoming).map(Ok::<_, Infallible>),
            async move {
                let _ = until.wait_for(|down| *down).await;
            },
        )
        .await
}

/// TLS of both listeners.
pub(crate) struct Tls {
    pub(crate) shown: Arc<Shown>,
    grpc: TlsAcceptor,
    rest: TlsAcceptor,
}

impl Tls {
    pub(crate) fn acceptors(&self) -> [Option<TlsAcceptor>; 2] {
        [Some(self.grpc.clone()), Some(self.rest.clone())]
    }
}

/// TLS as the settings say; `None`: there is to be none.
pub(crate) async fn secure(
    settings: &Settings,
    identities: &Identities,
) -> Result<Option<Tls>, StartError> {
    let Some(source) = &settings.tls else {
        return Ok(None);
    };
    let failed = |error: IdentityError| StartError::Store(error.to_string());
    let ca = identities.ca().await.map_err(failed)?;
    let shown = match Shown::new(source, ca) {
        Ok(shown) => shown,
        Err(NoTls::File(error)) => return Err(error.into()),
        Err(NoTls::Ca(error)) => return Err(failed(error)),
    };
    let grpc = shown.acceptor(Some(ca), &[b"h2"]).map_err(failed)?;
    let rest = shown
        .acceptor(None, &[b"h2", b"http/1.1"])
        .map_err(failed)?;
    Ok(Some(Tls { shown, grpc, rest }))
}
