//! The HTTP edge: which gateway, whether the request may enter, and its body.

pub mod tls;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use bytes::BytesMut;
use http::{
    HeaderMap, HeaderValue, Method as Verb, Request, Response, StatusCode, Version, header,
};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

use crate::{
    auth::Denied,
    body::Body,
    call::WorkerId,
    codec::{self, Inbound, json},
    error::{CallError, INVALID_REQUEST, error_message},
    node::Node,
    table::Gateway,
    upstream::http::headers::SESSION_ID,
};

/// Longest time for a request's body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest body of a request.
pub const MAX_REQUEST: usize = 16 << 20;

/// A response that ends a request early.
pub(crate) type Refusal = Box<Response<Body>>;

/// Answers a request of a client.
///
/// # Errors
/// None.
pub async fn serve(
    node: Arc<Node>,
    worker: WorkerId,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    // HTTP/2 says so with GOAWAY.
    let leaving = node.draining.load(std::sync::atomic::Ordering::Relaxed)
        && request.version() != Version::HTTP_2;
    let mut response = admit(node, worker, request)
        .await
        .unwrap_or_else(|refusal| *refusal);
    if leaving {
        // The client's next request is to find another replica.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Everything that comes before the message is looked at.
async fn admit(
    node: Arc<Node>,
    worker: WorkerId,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let (head, body) = request.into_parts();
    // The table is not held beyond this: what a later one drops can go.
    let gateway = node.table.load().gateway(head.uri.path()).cloned();
    let gateway = gateway.ok_or_else(|| no_gateway(&node, &head.headers))?;
    same_site(&gateway, &head.headers, &head.uri, node.is_local())?;
    let principal = gateway
        .auth
        .admit(&head.headers, gateway.project(), &node.revoked.load())
        .map_err(|denied| deny(&denied))?;
    let inbound = Inbound {
        node,
        worker,
        gateway,
        principal,
        headers: head.headers,
        body: Bytes::new(),
        relayed: false,
    };
    dispatch(head.method, inbound, body).await
}

/// Answers a request that has been let in, here or by another data plane.
pub(crate) async fn dispatch(
    verb: Verb,
    mut inbound: Inbound,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    match verb {
        Verb::POST => {
            json_only(&inbound.headers)?;
            inbound.body = read(&inbound.headers, body).await?;
            Ok(codec::post(inbound).await)
        }
        Verb::DELETE => Ok(Box::pin(codec::legacy::delete(&inbound)).await),
        // Without a session there is nothing to get, as in 2026-07-28.
        Verb::GET if inbound.headers.contains_key(SESSION_ID) => {
            Ok(Box::pin(codec::legacy::get(&inbound)).await)
        }
        _ => {
            let mut response = refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                "this endpoint takes POST, and GET and DELETE of a session",
            );
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET, POST, DELETE"));
            Err(response)
        }
    }
}

/// Takes down a request that stands, which another data plane tells of.
pub(crate) async fn stands(
    mut inbound: Inbound,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    inbound.body = read(&inbound.headers, body).await?;
    Ok(codec::legacy::standing::told(inbound).await)
}

fn no_gateway(node: &Node, headers: &HeaderMap) -> Refusal {
    let table = node.table.load();
    if !table.is_configured() {
        return refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "this data plane has no configuration yet",
        );
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let here = host.and_then(host_of).is_some_and(is_loopback);
    if node.is_local() && here && !headers.contains_key(header::ORIGIN) {
        // On a laptop the next question is always which paths there are.
        let mut paths: Vec<_> = table.gateways().map(|g| g.path.as_str()).collect();
        paths.sort_unstable();
        return refuse(
            StatusCode::NOT_FOUND,
            &format!("no gateway at this path; there are: {}", paths.join(" ")),
        );
    }
    refuse(StatusCode::NOT_FOUND, "no gateway at this path")
}

/// Guards against DNS rebinding: a page of another site must not reach this
/// endpoint through the browser (2026-07-28, Streamable HTTP: Security).
fn same_site(
    gateway: &Gateway,
    headers: &HeaderMap,
    uri: &http::Uri,
    local: bool,
) -> Result<(), Refusal> {
    let host = match headers.get(header::HOST) {
        Some(value) => value.to_str().ok().and_then(host_of),
        None => uri.host(),
    };
    let host = host.ok_or_else(|| {
        refuse(
            StatusCode::BAD_REQUEST,
            "header Host is missing or malformed",
        )
    })?;
    let host_fits = match gateway.hosts.as_slice() {
        [] => !local || is_loopback(host),
        hosts => hosts.iter().any(|own| own.eq_ignore_ascii_case(host)),
    };
    if !host_fits {
        return Err(refuse(
            StatusCode::FORBIDDEN,
            "this Host is not one of the gateway's `hosts`",
        ));
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or("?").to_ascii_lowercase();
    let origin_fits = match gateway.origins.as_slice() {
        [] => origin
            .split_once("://")
            .and_then(|(_, rest)| host_of(rest))
            .is_some_and(is_loopback),
        origins => origins.contains(&origin),
    };
    if origin_fits {
        Ok(())
    } else {
        Err(refuse(
            StatusCode::FORBIDDEN,
            "this Origin is not one of the gateway's `origins`",
        ))
    }
}

/// The host of `host:port` (RFC 3986, section 3.2, without a user), as it is written.
pub(crate) fn host_of(authority: &str) -> Option<&str> {
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(end);
    let port = rest.strip_prefix(':').unwrap_or(rest);
    let name = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let fits = match name {
        Some(address) => address
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || b":.".contains(&b)),
        None => host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&b)),
    };
    (!host.is_empty() && fits && port.bytes().all(|b| b.is_ascii_digit())).then_some(host)
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_within = |name: &str| {
        let at = host.len().checked_sub(name.len());
        at.and_then(|at| host.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(name))
    };
    host.eq_ignore_ascii_case("localhost")
        || is_within(".localhost")
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// A browser sends other types to other sites without asking first.
fn json_only(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value
        .as_bytes()
        .split(|b| *b == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/json") {
        Ok(())
    } else {
        Err(refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Content-Type must be application/json",
        ))
    }
}

async fn read(headers: &HeaderMap, body: Incoming) -> Result<Bytes, Refusal> {
    let too_large = || {
        refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("a request may have {} MiB", MAX_REQUEST >> 20),
        )
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_REQUEST) {
        return Err(too_large());
    }
    let mut whole = pin!(collect(body));
    // Most messages are there with their head, and need no timer.
    let at_once = poll_fn(|cx| Poll::Ready(whole.as_mut().poll(cx))).await;
    let whole = match at_once {
        Poll::Ready(whole) => Ok(whole),
        Poll::Pending => tokio::time::timeout(BODY_TIMEOUT, whole).await,
    };
    let Ok(whole) = whole else {
        let what = format!("the body did not arrive within {BODY_TIMEOUT:?}");
        return Err(refuse(StatusCode::REQUEST_TIMEOUT, &what));
    };
    match whole {
        Ok(Some(body)) => Ok(body),
        Ok(None) => Err(too_large()),
        Err(_) => Err(refuse(
            StatusCode::BAD_REQUEST,
            "the body could not be read to its end",
        )),
    }
}

/// The whole body; `None`: it has more than [`MAX_REQUEST`]. One that came in one piece is
/// not copied.
async fn collect(mut body: Incoming) -> hyper::Result<Option<Bytes>> {
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await.transpose()? else {
            break;
        };
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        if first.len() + all.len() + piece.len() > MAX_REQUEST {
            return Ok(None);
        }
        if first.is_empty() && all.is_empty() {
            first = piece;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&piece);
        }
    }
    Ok(Some(if all.is_empty() { first } else { all.freeze() }))
}

fn deny(denied: &Denied) -> Refusal {
    let (status, what, challenge) = match denied {
        Denied::Missing => (
            StatusCode::UNAUTHORIZED,
            "a bearer token is required",
            r#"Bearer realm="mcp-fleet""#,
        ),
        Denied::Invalid => (
            StatusCode::UNAUTHORIZED,
            "the bearer token is not accepted",
            r#"Bearer realm="mcp-fleet", error="invalid_token""#,
        ),
        Denied::Unavailable => {
            let what = "the gateway's auth policy cannot be evaluated on this node; its operator sees why in `mcpctl nodes`";
            return refuse(StatusCode::SERVICE_UNAVAILABLE, what);
        }
    };
    let mut response = refuse(status, what);
    response.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static(challenge),
    );
    response
}

fn refuse(status: StatusCode, what: &str) -> Refusal {
    let error = CallError::refused(INVALID_REQUEST, what);
    Box::new(json(
        status,
        error_message(b"null", error.code(), what, None),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_without_port_and_users() {
        assert_eq!(host_of("LocalHost:8080"), Some("LocalHost"));
        assert_eq!(host_of("[::1]:80"), Some("[::1]"));
        assert_eq!(host_of("[::1]"), Some("[::1]"));
        for odd in [
            "localhost@evil.example",
            "localhost:80@evil.example",
            "[::1].evil.example",
            "[::1",
            "localhost:80:90",
            "local host",
            ":80",
            "",
            "localhost/",
        ] {
            assert_eq!(host_of(odd), None, "{odd}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "127.0.0.1",
            "[::1]",
            "127.8.9.1",
            "a.localhost",
            "A.LocalHost",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
