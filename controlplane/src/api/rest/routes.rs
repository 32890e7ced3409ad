//! The table of what there is under `/api/v1`.

use std::sync::Arc;

use fleet_proto::key::Kind;
use futures_util::future::BoxFuture;

use super::{BASE, Failure, Input, Method, handlers, handlers::Reply, security};
use crate::api::{Api, auth::Caller};

/// What carries out a request.
pub(super) type Handle = fn(Arc<Api>, Caller, Input) -> BoxFuture<'static, Result<Reply, Failure>>;

/// A method of a path.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: String,
    /// Unique, for generators of clients.
    pub(super) id: String,
    pub(super) summary: String,
    pub(super) query: Vec<Param>,
    /// The message in the body. `optional`: it may be left out.
    pub(super) body: Option<Body>,
    /// The message in the answer.
    pub(super) answer: &'static str,
    /// The answer goes on, a message each line.
    pub(super) lines: bool,
    /// The status of that answer, and another one where there is one.
    pub(super) statuses: &'static [u16],
    /// Takes `If-Match`.
    pub(super) conditional: bool,
    /// The kind of resource it is about.
    pub(super) kind: Option<Kind>,
    pub(super) handle: Handle,
}

/// The message in a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    pub(super) message: &'static str,
    pub(super) optional: bool,
}

/// A parameter of a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) value: Value,
    pub(super) about: &'static str,
}

/// What a parameter holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Text,
    Number,
    Limit,
    Flag,
}

impl Value {
    pub(super) const fn wanted(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Number => "a whole number",
            Self::Limit => "a whole number below 4294967296",
            Self::Flag => "true or false",
        }
    }
}

const fn param(name: &'static str, value: Value, about: &'static str) -> Param {
    Param { name, value, about }
}

const PROJECT: Param = param("project", Value::Text, "The project; left out: `default`.");
const IN_PROJECT: Param = param("project", Value::Text, "Only this project; left out: all.");
const DRY_RUN: Param = param("dry_run", Value::Flag, "Do everything but the writing.");
const MESSAGE: Param = param("message", Value::Text, "Why; kept with the revision.");
const LIMIT: Param = param(
    "limit",
    Value::Limit,
    "At most this many; left out: 50; at most 1000.",
);

/// The word in the path for a kind.
pub(super) const fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Backend => "backends",
        Kind::Gateway => "gateways",
        Kind::AuthPolicy => "auth-policies",
        Kind::Secret => "secrets",
    }
}

/// Every route, in the order in which the document shows them.
pub(super) fn all() -> Vec<Route> {
    let mut routes = vec![
        post(
            "/apply",
            "apply",
            "Writes and removes resources, as one revision.",
            handlers::apply,
        )
        .takes("ApplyRequest", false)
        .conditional(),
        post(
            "/validate",
            "validate",
            "Checks resources; changes nothing.",
            handlers::validate,
        )
        .takes("ValidateRequest", false)
        .gives("ValidateResponse"),
        get(
            "/resources",
            "listResources",
            "Resources of all kinds.",
            handlers::list,
        )
        .query(&[
            param(
                "kind",
                Value::Text,
                "Only this kind, such as `Backend`; left out: all.",
            ),
            IN_PROJECT,
        ])
        .gives("ListResponse"),
    ];
    routes.extend(Kind::ALL.into_iter().flat_map(of_kind));
    routes.extend([
        get(
            "/revisions",
            "listRevisions",
            "Revisions, newest first.",
            handlers::revisions,
        )
        .query(&[LIMIT])
        .gives("RevisionsResponse"),
        get(
            "/revisions/{number}",
            "getRevision",
            "What a revision changed.",
            handlers::revision,
        )
        .query(&[param(
            "resources",
            Value::Flag,
            "Also give the resources it holds.",
        )])
        .gives("GetRevisionResponse"),
        post(
            "/revisions/{number}/rollback",
            "rollback",
            "Makes the state of a revision the newest revision.",
            handlers::rollback,
        )
        .takes("RollbackRequest", true)
        .conditional(),
        get(
            "/nodes",
            "listNodes",
            "Data planes and what each of them serves.",
            handlers::nodes,
        )
        .gives("NodesResponse"),
        get(
            "/nodes/{id}/status",
            "getNodeStatus",
            "How a data plane does, as it has reported last.",
            handlers::node_status,
        )
        .gives("GetNodeStatusResponse"),
        get(
            "/nodes/{id}/log",
            "followNodeLog",
            "The log of a data plane from now on, a JSON text each line, until the caller leaves.",
            handlers::node_log,
        )
        .query(&[param(
            "level",
            Value::Text,
            "`error`, `warn`, `info` or `debug`; left out: `info`.",
        )])
        .gives_lines("LogLines"),
        get(
            "/audit",
            "listAudit",
            "Who changed what, newest first.",
            handlers::audit,
        )
        .query(&[
            LIMIT,
            param(
                "before",
                Value::Number,
                "Only entries before the one of this id.",
            ),
        ])
        .gives("AuditResponse"),
        get(
            "/tokens",
            "listTokens",
            "Tokens of the API.",
            handlers::tokens,
        )
        .query(&[param(
            "all",
            Value::Flag,
            "Also those that are revoked or expired.",
        )])
        .gives("ListTokensResponse"),
        post(
            "/tokens",
            "createToken",
            "Makes a token.",
            handlers::create_token,
        )
        .takes("CreateTokenRequest", false)
        .gives("CreateTokenResponse")
        .statuses(&[201]),
        delete(
            "/tokens/{name}",
            "revokeToken",
            "Makes a token void.",
            handlers::revoke_token,
        )
        .gives("RevokeTokenResponse"),
        get(
            "/join-tokens",
            "listJoinTokens",
            "Tokens with which data planes can join.",
            handlers::identity::tokens,
        )
        .query(&[param(
            "all",
            Value::Flag,
            "Also those that are used, revoked or expired.",
        )])
        .gives("ListJoinTokensResponse"),
        post(
            "/join-tokens",
            "createJoinToken",
            "Makes a token with which one data plane can join.",
            handlers::identity::create_token,
        )
        .takes("CreateJoinTokenRequest", true)
        .gives("CreateJoinTokenResponse")
        .statuses(&[201]),
        delete(
            "/join-tokens/{id}",
            "revokeJoinToken",
            "Makes a join token void.",
            handlers::identity::revoke_token,
        )
        .gives("RevokeJoinTokenResponse"),
        post(
            "/nodes/{id}/revoke",
            "revokeNode",
            "Makes the certificates of a data plane void.",
            handlers::identity::revoke_node,
        )
        .gives("RevokeNodeResponse"),
        get(
            "/trust",
            "getTrust",
            "The CA that certificates of this fleet are of.",
            handlers::identity::trust,
        )
        .gives("GetTrustResponse"),
        get(
            "/revocations",
            "listRevocations",
            "Bearer tokens of clients that are not accepted any more.",
            security::list,
        )
        .gives("ListRevocationsResponse"),
        post(
            "/revocations",
            "revoke",
            "Refuses a client's bearer token from now on.",
            security::revoke,
        )
        .takes("RevokeRequest", false)
        .gives("RevokeResponse")
        .statuses(&[201]),
        delete(
            "/revocations/{bearer}",
            "unrevoke",
            "Takes a revocation back.",
            security::unrevoke,
        )
        .query(&[param(
            "project",
            Value::Text,
            "As in the revocation; left out: that of all projects.",
        )])
        .gives("UnrevokeResponse"),
        post(
            "/session-keys/rotate",
            "rotateSessionKeys",
            "Makes a new session key.",
            security::rotate,
        )
        .takes("RotateSessionKeysRequest", true)
        .gives("RotateSessionKeysResponse"),
        get(
            "/whoami",
            "whoAmI",
            "What the token of this call may do.",
            handlers::who_am_i,
        )
        .gives("WhoAmIResponse"),
    ]);
    routes
}

fn of_kind(kind: Kind) -> [Route; 4] {
    let many = format!("/{}", plural(kind));
    let one = format!("{many}/{{name}}");
    let message = kind.as_str();
    let routes = [
        get(
            &many,
            &format!("list{message}s"),
            &format!("All of kind {message}."),
            handlers::list,
        )
        .query(&[IN_PROJECT])
        .gives("ListResponse"),
        get(
            &one,
            &format!("get{message}"),
            &format!("One {message}."),
            handlers::get,
        )
        .query(&[PROJECT])
        .gives(message),
        Route::new(
            Method::Put,
            &one,
            &format!("put{message}"),
            &format!("Writes one {message}, whole."),
            handlers::put,
        )
        .query(&[PROJECT, DRY_RUN, MESSAGE])
        .takes(message, false)
        .statuses(&[200, 201])
        .conditional(),
        delete(
            &one,
            &format!("delete{message}"),
            &format!("Removes one {message}."),
            handlers::delete,
        )
        .query(&[PROJECT, DRY_RUN, MESSAGE])
        .gives("DeleteResponse")
        .conditional(),
    ];
    routes.map(|route| Route {
        kind: Some(kind),
        ..route
    })
}

fn get(path: &str, id: &str, summary: &str, handle: Handle) -> Route {
    Route::new(Method::Get, path, id, summary, handle)
}

fn post(path: &str, id: &str, summary: &str, handle: Handle) -> Route {
    Route::new(Method::Post, path, id, summary, handle)
}

fn delete(path: &str, id: &str, summary: &str, handle: Handle) -> Route {
    Route::new(Method::Delete, path, id, summary, handle)
}

impl Route {
    fn new(method: Method, path: &str, id: &str, summary: &str, handle: Handle) -> Self {
        Self {
            method,
            path: format!("{BASE}{path}"),
            id: id.to_owned(),
            summary: summary.to_owned(),
            query: Vec::new(),
            body: None,
            answer: "ApplyResponse",
            lines: false,
            statuses: &[200],
            conditional: false,
            kind: None,
            handle,
        }
    }

    fn query(mut self, params: &[Param]) -> Self {
        self.query = params.to_vec();
        self
    }

    fn takes(mut self, message: &'static str, optional: bool) -> Self {
        self.body = Some(Body { message, optional });
        self
    }

    fn gives(mut self, message: &'static str) -> Self {
        self.answer = message;
        self
    }

    fn gives_lines(mut self, message: &'static str) -> Self {
        self.lines = true;
        self.gives(message)
    }

    fn statuses(mut self, statuses: &'static [u16]) -> Self {
        self.statuses = statuses;
        self
    }

    fn conditional(mut self) -> Self {
        self.conditional = true;
        self
    }
}
