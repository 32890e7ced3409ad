//! The gRPC administration API, as a program of an operator uses it.

use anyhow::{Context, Result};
use fleet_proto::v1::{
    ApplyRequest, ApplyResponse, AuthPolicy, Backend, BearerAuth, DeleteRequest, DeleteResponse,
    HttpBackend, ListRequest, ListResponse, Node, NodeState, NodesRequest, Resource, ResourceKey,
    Revision, RevisionsRequest, auth_policy::Scheme, backend::Transport,
    config_service_client::ConfigServiceClient, resource::Kind,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::wait::until;

/// Puts the administration token into every request.
#[derive(Clone)]
pub struct WithToken(MetadataValue<Ascii>);

impl Interceptor for WithToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A connection to a control plane.
#[derive(Clone)]
pub struct Admin {
    client: ConfigServiceClient<InterceptedService<Channel, WithToken>>,
}

impl Admin {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(url: &str, token: &str) -> Result<Self> {
        let channel = Channel::from_shared(url.to_owned())?.connect().await?;
        let token = WithToken(format!("Bearer {token}").parse()?);
        Ok(Self {
            client: ConfigServiceClient::with_interceptor(channel, token),
        })
    }

    /// Writes resources.
    ///
    /// # Errors
    /// The control plane refuses.
    pub async fn apply(&mut self, resources: Vec<Resource>) -> Result<ApplyResponse, Status> {
        let request = ApplyRequest {
            resources,
            ..ApplyRequest::default()
        };
        Ok(self.client.apply(request).await?.into_inner())
    }

    /// Writes a resource if this is the newest revision, and gives the one made.
    ///
    /// # Errors
    /// It is not (`ABORTED`), or the control plane refuses.
    pub async fn apply_at(&mut self, revision: u64, resource: Resource) -> Result<u64, Status> {
        let request = ApplyRequest {
            resources: vec![resource],
            expect_revision: Some(revision),
            ..ApplyRequest::default()
        };
        Ok(self.client.apply(request).await?.into_inner().revision)
    }

    /// All resources of a kind.
    ///
    /// # Errors
    /// The control plane refuses.
    pub async fn list(&mut self, kind: &str) -> Result<ListResponse, Status> {
        let request = ListRequest {
            kind: kind.to_owned(),
            ..ListRequest::default()
        };
        Ok(self.client.list(request).await?.into_inner())
    }

    /// The newest thousand revisions, the newest first.
    ///
    /// # Errors
    /// The control plane refuses.
    pub async fn history(&mut self) -> Result<Vec<Revision>, Status> {
        let request = RevisionsRequest { limit: 1000 };
        Ok(self.client.revisions(request).await?.into_inner().revisions)
    }

    /// Removes a backend of the default project.
    ///
    /// # Errors
    /// The control plane refuses.
    pub async fn delete_backend(&mut self, name: &str) -> Result<DeleteResponse, Status> {
        let key = ResourceKey {
            project: String::new(),
            kind: "Backend".to_owned(),
            name: name.to_owned(),
        };
        let request = DeleteRequest {
            keys: vec![key],
            ..DeleteRequest::default()
        };
        Ok(self.client.delete(request).await?.into_inner())
    }

    /// The number of the newest revision.
    ///
    /// # Errors
    /// The control plane refuses.
    pub async fn revision(&mut self) -> Result<u64, Status> {
        let revisions = self
            .client
            .revisions(RevisionsRequest { limit: 1 })
            .await?
            .into_inner();
        Ok(revisions
            .revisions
            .first()
            .map_or(0, |revision| revision.number))
    }

    /// The data planes.
    ///
    /// # Errors
    /// The control plane refuses.
    pub async fn nodes(&mut self) -> Result<Vec<Node>, Status> {
        Ok(self.client.nodes(NodesRequest {}).await?.into_inner().nodes)
    }

    /// Waits until every data plane, and at least one, serves this revision or a later one.
    ///
    /// # Errors
    /// One does not, or refuses it.
    pub async fn acked(&mut self, revision: u64) -> Result<()> {
        let mut changes = self.client.watch_nodes(NodesRequest {}).await?.into_inner();
        let reached = async {
            while let Some(now) = changes.message().await? {
                if let Some(refuser) = now.nodes.iter().find(|n| n.nacked_revision >= revision) {
                    anyhow::bail!(
                        "{} refused revision {revision}: {refuser:?}",
                        refuser.node_id
                    );
                }
                let serves = |n: &Node| n.state() == NodeState::Synced && n.revision >= revision;
                if !now.nodes.is_empty() && now.nodes.iter().all(serves) {
                    return Ok(());
                }
            }
            anyhow::bail!("the control plane closed the stream of node states")
        };
        crate::wait::soon("the data planes' acks", reached)
            .await?
            .with_context(|| format!("revision {revision}"))
    }

    /// Waits until a data plane is in this state.
    ///
    /// # Errors
    /// None is, for too long.
    pub async fn node_in(&self, state: NodeState) -> Result<Node> {
        until(&format!("a node that is {state:?}"), || {
            let mut this = self.clone();
            async move {
                let nodes = this.nodes().await.ok()?;
                nodes.into_iter().find(|node| node.state() == state)
            }
        })
        .await
    }
}

/// An HTTP backend as a resource.
#[must_use]
pub fn http_backend(name: &str, url: &str) -> Resource {
    let transport = HttpBackend {
        url: url.to_owned(),
        ..HttpBackend::default()
    };
    resource(Backend {
        name: name.to_owned(),
        transport: Some(Transport::Http(transport)),
        ..Backend::default()
    })
}

/// A policy that no gateway asks for, as a resource: one that costs data planes nothing.
#[must_use]
pub fn policy(name: &str) -> Resource {
    let scheme = Scheme::Bearer(BearerAuth {
        tokens: vec![format!("sha256:{}", "0".repeat(64))],
    });
    Resource {
        kind: Some(Kind::AuthPolicy(AuthPolicy {
            name: name.to_owned(),
            scheme: Some(scheme),
            ..AuthPolicy::default()
        })),
    }
}

/// A backend as a resource.
#[must_use]
pub fn resource(backend: Backend) -> Resource {
    Resource {
        kind: Some(Kind::Backend(backend)),
    }
}
