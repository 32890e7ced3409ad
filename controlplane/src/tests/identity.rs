//! How nodes join over TLS, with what they come from then on, and how that ends.

use std::net::SocketAddr;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use fleet_proto::v1::{
    CertificateResponse, CreateJoinTokenRequest, CreateJoinTokenResponse, GetTrustRequest,
    JoinRequest, ListJoinTokensRequest, RenewRequest, RevokeJoinTokenRequest, RevokeNodeRequest,
    control_message::Message as FromControl, fleet_identity_client::FleetIdentityClient,
    identity_service_client::IdentityServiceClient,
};
use fleet_tests::postgres::cluster;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, SigningKey};
use sqlx::Connection as _;
use tonic::{
    Code,
    transport::{Certificate, ClientTlsConfig, Identity},
};

use super::{shared::on, *};
use crate::TlsSource;

mod peers;

fn secured(settings: Settings) -> Settings {
    Settings {
        tls: Some(TlsSource::Names(vec![
            "localhost".into(),
            "127.0.0.1".into(),
        ])),
        ..settings
    }
}

async fn plane_of(settings: Settings) -> Plane {
    let running = start(settings).await.unwrap();
    Plane {
        folder: tempfile::tempdir().unwrap(),
        admin: running.admin_token().unwrap_or_default().to_owned(),
        node: running.node_token().unwrap_or_default().to_owned(),
        running,
    }
}

/// A fleet over TLS, and somebody who trusts its CA.
struct Fleet {
    plane: Plane,
    ca: String,
    _folder: TempDir,
}

type Admin = IdentityServiceClient<InterceptedService<Channel, Bearer>>;

impl Fleet {
    async fn start() -> Self {
        Self::with(|settings| settings).await
    }

    async fn with(change: impl Fn(Settings) -> Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plane = plane_of(change(secured(settings(&folder)))).await;
        Self {
            ca: ca_of(&plane).await,
            plane,
            _folder: folder,
        }
    }

    fn address(&self) -> SocketAddr {
        self.plane.running.grpc_addr()
    }

    async fn channel(&self) -> Channel {
        channel(self.address(), &self.ca, None).await.unwrap()
    }

    async fn admin(&self) -> Admin {
        let bearer = bearer(&self.plane.admin);
        IdentityServiceClient::with_interceptor(self.channel().await, bearer)
    }

    async fn token(&self, node_id: &str) -> CreateJoinTokenResponse {
        let request = CreateJoinTokenRequest {
            node_id: node_id.to_owned(),
            expires_in: None,
        };
        let made = self.admin().await.create_join_token(request).await;
        made.unwrap().into_inner()
    }

    async fn join(&self, token: &str, node_id: &str) -> Result<Node, Status> {
        self.join_with(token, node_id, KeyPair::generate().unwrap())
            .await
    }

    async fn join_with(&self, token: &str, node_id: &str, key: KeyPair) -> Result<Node, Status> {
        let request = JoinRequest {
            token: token.to_owned(),
            node_id: node_id.to_owned(),
            csr: csr(&key),
        };
        let mut client = FleetIdentityClient::new(self.channel().await);
        let given = client.join(request).await?.into_inner();
        Ok(Node { key, given })
    }

    async fn joined(&self, node_id: &str) -> Node {
        let token = self.token("").await.value;
        self.join(&token, node_id).await.unwrap()
    }

    /// Renews; `signer`: whose key proves it.
    async fn renew(&self, node: &Node, signer: &KeyPair) -> Result<Node, Status> {
        let key = KeyPair::generate().unwrap();
        let csr = csr(&key);
        let signed = [b"mcp-fleet renew 1\0", &csr[..]].concat();
        let request = RenewRequest {
            certificate: node.given.certificate.clone(),
            signature: signer.sign(&signed).unwrap(),
            csr,
        };
        let mut client = FleetIdentityClient::new(self.channel().await);
        let given = client.renew(request).await?.into_inner();
        Ok(Node { key, given })
    }

    async fn revoke(&self, node_id: &str) -> u32 {
        let node_id = node_id.to_owned();
        let mut admin = self.admin().await;
        let revoked = admin.revoke_node(RevokeNodeRequest { node_id }).await;
        revoked.unwrap().into_inner().certificates
    }

    /// A stream with this certificate that has said this hello.
    async fn stream(&self, node: &Node, hello: Hello) -> Result<FakeNode, Status> {
        stream(self.address(), &self.ca, node, hello).await
    }
}

struct Node {
    key: KeyPair,
    given: CertificateResponse,
}

fn csr(key: &KeyPair) -> Vec<u8> {
    let params = CertificateParams::default();
    params.serialize_request(key).unwrap().der().to_vec()
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

async fn ca_of(plane: &Plane) -> String {
    pem(plane.running.identities.ca().await.unwrap().certificate())
}

async fn channel(
    address: SocketAddr,
    ca: &str,
    node: Option<&Node>,
) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if let Some(node) = node {
        let certificate = pem(&node.given.certificate);
        tls = tls.identity(Identity::from_pem(certificate, node.key.serialize_pem()));
    }
    let endpoint = Channel::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls)?.connect().await
}

async fn stream(
    address: SocketAddr,
    ca: &str,
    node: &Node,
    hello: Hello,
) -> Result<FakeNode, Status> {
    let channel = channel(address, ca, Some(node)).await;
    let channel = channel.map_err(|error| Status::unavailable(format!("{error:?}")))?;
    let mut client = FleetSyncClient::new(channel);
    let (sender, receiver) = mpsc::channel(8);
    let id = hello.node_id.clone();
    let first = NodeMessage {
        message: Some(FromNode::Hello(hello)),
    };
    sender.send(first).await.unwrap();
    let inbound = client.sync(ReceiverStream::new(receiver)).await?;
    Ok(FakeNode {
        id,
        sender,
        inbound: inbound.into_inner(),
        parts: Vec::new(),
    })
}

/// Why a stream ends.
async fn end(node: &mut FakeNode) -> Status {
    loop {
        match node.next().await {
            Ok(FromControl::GoAway(_)) => panic!("it was sent away"),
            Ok(_) => {}
            Err(status) => return status,
        }
    }
}

fn refused<T>(result: Result<T, Status>) -> Status {
    result.err().expect("it was let in")
}

#[tokio::test]
async fn a_node_joins_and_its_certificate_opens_a_stream() {
    let fleet = Fleet::start().await;
    let token = fleet.token("").await;
    let node = fleet.join(&token.value, "n1").await.unwrap();
    assert_eq!(pem(&node.given.ca), fleet.ca);
    let mut stream = fleet.stream(&node, hello("n1")).await.unwrap();
    let set = stream.set().await;
    stream.ack(&set).await;
    let api =
        ConfigServiceClient::with_interceptor(fleet.channel().await, bearer(&fleet.plane.admin));
    let mut watch = api
        .clone()
        .watch_nodes(NodesRequest {})
        .await
        .unwrap()
        .into_inner();
    let nodes = timeout(PATIENCE, async {
        loop {
            let nodes = watch.message().await.unwrap().unwrap();
            if state(&nodes, "n1") == NodeState::Synced {
                return nodes;
            }
        }
    });
    let nodes = nodes.await.unwrap();
    let day = 24 * 3600 * 1000;
    let left = super::node(&nodes, "n1").certificate_expires_ms - crate::clock::now_ms();
    assert!(left <= day && left > day - 60_000, "{left}");

    let request = ListJoinTokensRequest { all: true };
    let listed = fleet.admin().await.list_join_tokens(request).await.unwrap();
    let used = &listed.into_inner().tokens[0];
    assert_eq!((used.used_by.as_str(), used.used_ms > 0), ("n1", true));
    let log = fleet.plane.running.store.audit(0, 10).await.unwrap();
    let log: Vec<_> = log
        .iter()
        .map(|row| (row.action.as_str(), row.token.as_str()))
        .collect();
    let made = (
        "join_token.create",
        token.token.as_ref().unwrap().id.as_str(),
    );
    assert_eq!(log, [("node.join", "n1"), made]);
}

#[tokio::test]
async fn a_token_that_is_not_good_is_refused_in_the_same_words() {
    let fleet = Fleet::start().await;
    let [used, revoked] = [fleet.token("").await, fleet.token("").await];
    fleet.join(&used.value, "n1").await.unwrap();
    let id = revoked.token.unwrap().id;
    let mut admin = fleet.admin().await;
    let request = RevokeJoinTokenRequest { id };
    admin.revoke_join_token(request.clone()).await.unwrap();
    let again = admin.revoke_join_token(request).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    let bound = fleet.token("other").await.value;
    let guessed = {
        let mut parts: Vec<_> = bound.split('.').collect();
        parts[2] = "guessed";
        parts.join(".")
    };
    let mut said = Vec::new();
    for token in [
        &used.value,
        &revoked.value,
        &bound,
        &guessed,
        "mfj1.aa.bb",
        "x",
        "\0.\0",
    ] {
        let status = refused(fleet.join(token, "n2").await);
        assert_eq!(status.code(), Code::Unauthenticated, "{token}: {status}");
        said.push(status.message().to_owned());
    }
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    // It was only tried in vain.
    fleet.join(&bound, "other").await.unwrap();
}

#[tokio::test]
async fn a_token_that_has_expired_is_refused() {
    let fleet = Fleet::start().await;
    let request = CreateJoinTokenRequest {
        node_id: String::new(),
        expires_in: Some("1ms".parse().unwrap()),
    };
    let made = fleet
        .admin()
        .await
        .create_join_token(request)
        .await
        .unwrap();
    let made = made.into_inner();
    // By the time the token is back it is over, or nearly so.
    while crate::clock::now_ms() <= made.token.as_ref().unwrap().expires_ms {
        tokio::task::yield_now().await;
    }
    let status = refused(fleet.join(&made.value, "n1").await);
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_token_for_any_node_takes_over_no_node() {
    let fleet = Fleet::start().await;
    fleet.joined("n1").await;
    let token = fleet.token("").await.value;
    let status = refused(fleet.join(&token, "n1").await);
    assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    // It is not used up by that.
    fleet.join(&token, "n2").await.unwrap();
    let bound = fleet.token("n1").await.value;
    fleet.join(&bound, "n1").await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_in_a_certificate_is_refused_and_the_token_stays_good() {
    let fleet = Fleet::start().await;
    let token = fleet.token("").await.value;
    for id in ["", "a/b", "ü", ".a", &"a".repeat(254)] {
        let status = refused(fleet.join(&token, id).await);
        assert_eq!(status.code(), Code::InvalidArgument, "{id}");
    }
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let status = refused(fleet.join_with(&token, "n1", other).await);
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let mut client = FleetIdentityClient::new(fleet.channel().await);
    let key = KeyPair::generate().unwrap();
    let mut broken = csr(&key);
    *broken.last_mut().unwrap() ^= 1;
    for csr in [broken, vec![0; 100], vec![0; 17_000]] {
        let request = JoinRequest {
            token: token.clone(),
            node_id: "n1".to_owned(),
            csr,
        };
        let status = client.join(request).await.unwrap_err();
        let codes = [Code::InvalidArgument, Code::OutOfRange];
        assert!(codes.contains(&status.code()), "{status}");
    }
    fleet.join(&token, &"a".repeat(253)).await.unwrap();
}

#[tokio::test]
async fn a_certificate_speaks_for_its_own_node_only() {
    let fleet = Fleet::start().await;
    let node = fleet.joined("n1").await;
    let mut stream = fleet.stream(&node, hello("n2")).await.unwrap();
    let status = end(&mut stream).await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    // Nor does the node token speak for it.
    let shared = bearer(&fleet.plane.node);
    for (id, code) in [("n1", Some(Code::PermissionDenied)), ("n3", None)] {
        let channel = fleet.channel().await;
        let mut client = FleetSyncClient::with_interceptor(channel, shared.clone());
        let (sender, receiver) = mpsc::channel(8);
        let inbound = client.sync(ReceiverStream::new(receiver)).await.unwrap();
        let mut node = FakeNode {
            id: id.to_owned(),
            sender,
            inbound: inbound.into_inner(),
            parts: Vec::new(),
        };
        node.say(FromNode::Hello(hello(id))).await;
        match code {
            Some(code) => assert_eq!(end(&mut node).await.code(), code),
            None => drop(node.set().await),
        }
    }
}

#[tokio::test]
async fn a_certificate_of_another_ca_or_for_servers_opens_nothing() {
    let (fleet, other) = (Fleet::start().await, Fleet::start().await);
    let foreign = other.joined("n1").await;
    refused(fleet.stream(&foreign, hello("n1")).await);
    let status = refused(fleet.renew(&foreign, &foreign.key).await);
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    // Of the same CA, and never given out: a database that was set back.
    let ca = fleet.plane.running.identities.ca().await.unwrap();
    let key = KeyPair::generate().unwrap();
    let unknown = ca
        .sign_node("n1", &csr(&key), Duration::from_secs(60))
        .unwrap();
    let unknown = Node {
        given: CertificateResponse {
            certificate: unknown.der,
            ca: Vec::new(),
        },
        key,
    };
    let status = refused(fleet.stream(&unknown, hello("n1")).await);
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let status = refused(fleet.renew(&unknown, &unknown.key).await);
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
}

#[tokio::test]
async fn a_revoked_node_is_out_at_once_until_it_joins_again() {
    let fleet = Fleet::start().await;
    let first = fleet.joined("n1").await;
    let node = fleet.renew(&first, &first.key).await.unwrap();
    let mut stream = fleet.stream(&first, hello("n1")).await.unwrap();
    let set = stream.set().await;
    stream.ack(&set).await;
    assert_eq!(fleet.revoke("n1").await, 2);
    let status = end(&mut stream).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    for held in [&first, &node] {
        let status = refused(fleet.stream(held, hello("n1")).await);
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        let status = refused(fleet.renew(held, &held.key).await);
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    }
    let token = fleet.token("n1").await.value;
    let again = fleet.join(&token, "n1").await.unwrap();
    let mut stream = fleet.stream(&again, hello("n1")).await.unwrap();
    stream.set().await;
    let mut admin = fleet.admin().await;
    let node_id = "never".to_owned();
    let never = admin.revoke_node(RevokeNodeRequest { node_id }).await;
    assert_eq!(never.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn only_its_own_key_renews_a_certificate() {
    let fleet = Fleet::start().await;
    let node = fleet.joined("n1").await;
    let thief = KeyPair::generate().unwrap();
    let status = refused(fleet.renew(&node, &thief).await);
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let next = fleet.renew(&node, &node.key).await.unwrap();
    fleet.stream(&next, hello("n1")).await.unwrap().set().await;
}

#[tokio::test]
async fn a_certificate_that_ends_ends_its_stream_unless_it_was_renewed() {
    let short = |settings| Settings {
        node_certificate_lifetime: Duration::from_secs(5),
        ..settings
    };
    let fleet = Fleet::with(short).await;
    let first = fleet.joined("n1").await;
    let left = fleet.joined("n2").await;
    let mut stays = fleet.stream(&first, hello("n1")).await.unwrap();
    let set = stays.set().await;
    stays.ack(&set).await;
    let mut ends = fleet.stream(&left, hello("n2")).await.unwrap();
    ends.set().await;
    let renewing = async {
        let mut next = fleet.renew(&first, &first.key).await.unwrap();
        loop {
            next = fleet.renew(&next, &next.key).await.unwrap();
        }
    };
    let rest = async {
        // The certificate of n1 that its stream came with ends no later than this one.
        let status = end(&mut ends).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("expired"), "{status}");
        let bearer = bearer(&fleet.plane.admin);
        let api = fleet.channel().await;
        let mut api = ConfigServiceClient::with_interceptor(api, bearer);
        api.apply(apply(vec![backend("a")])).await.unwrap();
        assert_eq!(stays.set().await.revision(), 1);
    };
    tokio::select! {
        () = rest => {}
        () = renewing => {}
    }
    // No handshake with one that has expired; it can still be renewed.
    refused(fleet.stream(&left, hello("n2")).await);
    let back = fleet.renew(&left, &left.key).await.unwrap();
    fleet.stream(&back, hello("n2")).await.unwrap().set().await;
}

#[tokio::test]
async fn a_stream_with_a_node_token_ends_when_the_token_does() {
    let plane = Plane::start().await;
    let node = plane.running.issue_node_token().await.unwrap();
    let plane = Plane { node, ..plane };
    let mut stream = plane.connect(hello("n1")).await;
    stream.set().await;
    plane.running.issue_node_token().await.unwrap();
    let status = end(&mut stream).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
}

#[tokio::test]
async fn without_tls_nobody_joins() {
    let plane = Plane::start().await;
    let mut admin =
        IdentityServiceClient::with_interceptor(plane.channel().await, bearer(&plane.admin));
    let status = admin
        .create_join_token(CreateJoinTokenRequest::default())
        .await
        .unwrap_err();
    assert!(status.message().contains("--tls-name"), "{status}");
    let mut client = FleetIdentityClient::new(plane.channel().await);
    let status = client.join(JoinRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
}

#[tokio::test]
async fn a_pin_is_in_the_token_only_where_the_listener_has_the_certificate_of_the_ca() {
    let fleet = Fleet::start().await;
    let trust = fleet.admin().await.get_trust(GetTrustRequest {}).await;
    let trust = trust.unwrap().into_inner();
    let unwrapped = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(unwrapped(&trust.ca_pem), unwrapped(&fleet.ca));
    let value = fleet.token("").await.value;
    let pin = value.split('.').nth(3).unwrap();
    let pin = URL_SAFE_NO_PAD.decode(pin).unwrap();
    assert_eq!(hex::encode(pin), trust.ca_sha256);

    // The same CA, and a certificate from elsewhere.
    let ca = fleet.plane.running.identities.ca().await.unwrap();
    assert_eq!(hex::encode(ca.fingerprint().0), trust.ca_sha256);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let own = own.self_signed(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, path) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&cert, own.pem()).unwrap();
    std::fs::write(&path, key.serialize_pem()).unwrap();
    let tls = Some(TlsSource::Files { cert, key: path });
    let plane = plane_of(Settings {
        tls,
        ..settings(&folder)
    })
    .await;
    let address = format!("https://localhost:{}", plane.running.grpc_addr().port());
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(own.pem()));
    let channel = Channel::from_shared(address)
        .unwrap()
        .tls_config(tls)
        .unwrap();
    let channel = channel.connect().await.unwrap();
    let mut admin = IdentityServiceClient::with_interceptor(channel, bearer(&plane.admin));
    let made = admin
        .create_join_token(CreateJoinTokenRequest::default())
        .await;
    assert_eq!(made.unwrap().into_inner().value.split('.').count(), 3);
}

#[tokio::test]
async fn control_planes_of_one_database_have_one_ca_and_one_mind() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    let url = cluster().database(name).await.unwrap();
    let starts = (0..3).map(|_| start(secured(on(&url))));
    let started = futures_util::future::join_all(starts).await;
    let planes: Vec<_> = started.into_iter().map(Result::unwrap).collect();
    let mut prints = Vec::new();
    for plane in &planes {
        prints.push(plane.identities.ca().await.unwrap().fingerprint());
    }
    prints.dedup();
    assert_eq!(prints.len(), 1, "one has made it");
    let admin = planes
        .iter()
        .find_map(|p| p.admin_token())
        .unwrap()
        .to_owned();
    let node_token = planes
        .iter()
        .find_map(|p| p.node_token())
        .unwrap()
        .to_owned();
    let mut planes = planes.into_iter();
    let running = planes.next().unwrap();
    let plane = Plane {
        folder: tempfile::tempdir().unwrap(),
        running,
        admin,
        node: node_token,
    };
    let fleet = Fleet {
        ca: ca_of(&plane).await,
        plane,
        _folder: folder,
    };
    let node = fleet.joined("n1").await;
    // What one has given out opens a stream to another, and what one revokes ends it.
    let other = planes.next().unwrap();
    let mut stream = stream(other.grpc_addr(), &fleet.ca, &node, hello("n1"))
        .await
        .unwrap();
    stream.set().await;
    assert_eq!(fleet.revoke("n1").await, 1);
    let status = end(&mut stream).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
}

#[tokio::test]
async fn the_key_of_the_ca_is_in_no_file_and_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let plane = start(secured(settings(&folder))).await.unwrap();
    let before = plane.identities.ca().await.unwrap().fingerprint();
    plane.shutdown().await;
    let database = std::fs::read(folder.path().join("fleet.db")).unwrap();
    // PKCS #8 of P-256 (RFC 5208, RFC 5480): the algorithm, then the key.
    let plain =
        hex::decode("301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420").unwrap();
    assert!(!database.windows(plain.len()).any(|window| window == plain));
    let plane = start(secured(settings(&folder))).await.unwrap();
    assert_eq!(plane.identities.ca().await.unwrap().fingerprint(), before);
}

#[tokio::test]
async fn rest_speaks_tls_and_does_the_same() {
    let fleet = Fleet::start().await;
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(fleet.ca.as_bytes()).unwrap()])
        .build()
        .unwrap();
    let base = format!(
        "https://{}/api/v1",
        fleet.plane.running.rest_addr().unwrap()
    );
    let call = async |method: Method, path: &str| {
        let request = client.request(method, format!("{base}{path}"));
        let answer = request
            .bearer_auth(&fleet.plane.admin)
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<serde_json::Value>().await.unwrap())
    };
    use reqwest::Method;
    let (status, made) = call(Method::POST, "/join-tokens").await;
    assert_eq!(status, 201, "{made}");
    fleet
        .join(made["value"].as_str().unwrap(), "n1")
        .await
        .unwrap();
    let (_, open) = call(Method::GET, "/join-tokens").await;
    assert_eq!(open["tokens"], serde_json::Value::Null, "{open}");
    let (_, all) = call(Method::GET, "/join-tokens?all=true").await;
    assert_eq!(all["tokens"][0]["used_by"], "n1", "{all}");
    let id = all["tokens"][0]["id"].as_str().unwrap();
    let (status, _) = call(Method::DELETE, &format!("/join-tokens/{id}")).await;
    assert_eq!(status, 404, "it is used");
    let (status, revoked) = call(Method::POST, "/nodes/n1/revoke").await;
    assert_eq!((status, &revoked["certificates"]), (200, &1.into()));
    let (status, _) = call(Method::POST, "/nodes/none/revoke").await;
    assert_eq!(status, 404);
    let (_, trust) = call(Method::GET, "/trust").await;
    assert_eq!(trust["ca_sha256"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn a_certificate_that_ended_more_than_30_days_ago_is_not_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet {
        plane: plane_of(secured(settings(&folder))).await,
        ca: String::new(),
        _folder: folder,
    };
    let fleet = Fleet {
        ca: ca_of(&fleet.plane).await,
        ..fleet
    };
    let node = fleet.joined("n1").await;
    let end = crate::clock::now_ms() - 30 * 24 * 3_600_000;
    let age = async |expires_ms: u64| {
        let file = fleet._folder.path().join("fleet.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
        let mut db = sqlx::SqliteConnection::connect_with(&options)
            .await
            .unwrap();
        let update = sqlx::query("UPDATE certificates SET expires_ms = ?");
        update
            .bind(expires_ms as i64)
            .execute(&mut db)
            .await
            .unwrap();
        db.close().await.unwrap();
    };
    age(end - 1000).await;
    let status = refused(fleet.renew(&node, &node.key).await);
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    assert!(status.message().contains("too long ago"), "{status}");
}
