//! A request, checked against its route: parameters, preconditions, body.

use std::collections::BTreeMap;

use axum::{
    body::{self, Body, Bytes},
    extract::{Query, RawPathParams, Request},
    http::{HeaderMap, StatusCode, Uri, header},
};
use fleet_proto::key::Kind;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use super::{Failure, Method, Route, routes::Value};
use crate::{LARGEST_MESSAGE, api::strict::MOST};

/// Longest time for a body to arrive.
const ARRIVAL: std::time::Duration = std::time::Duration::from_secs(60);

/// What a handler gets.
pub(super) struct Input {
    /// The kind that the route is about.
    pub(super) kind: Option<Kind>,
    path: BTreeMap<String, String>,
    query: BTreeMap<String, String>,
    /// `If-Match`: the revision that must be the newest.
    pub(super) expect_revision: Option<u64>,
    /// `If-None-Match` of a read: the revision that the caller has already.
    pub(super) unless: Option<u64>,
    body: Bytes,
}

impl Input {
    pub(super) async fn read(
        route: &Route,
        params: &RawPathParams,
        request: Request,
    ) -> Result<Self, Failure> {
        let (head, body) = request.into_parts();
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let query = query(route, &head.uri)?;
        let (expect_revision, unless) = preconditions(route, &head.headers)?;
        let body = match route.body {
            Some(_) => read_body(&head.headers, body).await?,
            None if has_body(&head.headers) => {
                return Err(Failure::bad("there is a body where none is expected"));
            }
            None => Bytes::new(),
        };
        Ok(Self {
            kind: route.kind,
            path: params.iter().map(own).collect(),
            query,
            expect_revision,
            unless,
            body,
        })
    }

    /// A segment of the path.
    pub(super) fn segment(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// A segment of the path that is a number.
    pub(super) fn number(&self, name: &str) -> Result<u64, Failure> {
        let text = self.segment(name);
        text.parse()
            .map_err(|_| Failure::bad(format!("{name}: {text:?} is not a whole number")))
    }

    /// A parameter; empty: it was left out.
    pub(super) fn text(&self, name: &str) -> String {
        self.query.get(name).cloned().unwrap_or_default()
    }

    /// A parameter that is a number; 0: it was left out. It has been checked.
    pub(super) fn count(&self, name: &str) -> u64 {
        self.query
            .get(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    /// A parameter that is yes or no. It has been checked.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.query.get(name).is_some_and(|text| text != "false")
    }

    /// The body as a message.
    pub(super) fn message<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let mut json = serde_json::Deserializer::from_slice(&self.body);
        let message = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            let place = if path == "." { "body" } else { &path };
            let what = error.inner().to_string();
            Failure::bad(format!("{place}: {}", without_value(&what)))
        })?;
        json.end()
            .map_err(|error| Failure::bad(format!("body: {error}")))?;
        Ok(message)
    }

    /// The body as a message that may be left out.
    pub(super) fn message_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Failure> {
        if self.body.is_empty() {
            Ok(T::default())
        } else {
            self.message()
        }
    }

    /// The revision that must be the newest, said in the header, in the body, or in
    /// both alike.
    pub(super) fn expected(&self, in_body: Option<u64>) -> Result<Option<u64>, Failure> {
        match (self.expect_revision, in_body) {
            (Some(header), Some(body)) if header != body => Err(Failure::bad(format!(
                "`if-match` says revision {header}, `expect_revision` says {body}: leave out one"
            ))),
            (header, body) => Ok(header.or(body)),
        }
    }
}

/// What the decoder says of a field, without what is in it: that may be secret.
fn without_value(what: &str) -> String {
    let tells = ["invalid type", "invalid value"];
    match what.rfind(", expected ") {
        Some(at) if tells.iter().any(|tell| what.starts_with(tell)) => {
            format!("it is not {}", &what[at + ", expected ".len()..])
        }
        _ => what.to_owned(),
    }
}

/// The parameters of a query: known ones only, each once.
fn query(route: &Route, uri: &Uri) -> Result<BTreeMap<String, String>, Failure> {
    let mut found = BTreeMap::new();
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| Failure::bad(format!("the query cannot be read: {error}")))?;
    for (name, value) in pairs {
        let Some(param) = route.query.iter().find(|param| param.name == name) else {
            let known: Vec<_> = route.query.iter().map(|param| param.name).collect();
            let known = if known.is_empty() {
                "there are none here".to_owned()
            } else {
                format!("use {}", known.join(", "))
            };
            return Err(Failure::bad(format!("unknown parameter `{name}`: {known}")));
        };
        let fits = match param.value {
            Value::Text => true,
            Value::Number => value.parse::<u64>().is_ok(),
            Value::Limit => value.parse::<u32>().is_ok(),
            Value::Flag => ["", "true", "false"].contains(&value.as_str()),
        };
        if !fits {
            let wanted = param.value.wanted();
            return Err(Failure::bad(format!("{name}: {value:?} is not {wanted}")));
        }
        if found.insert(name.clone(), value).is_some() {
            return Err(Failure::bad(format!("parameter `{name}` is there twice")));
        }
    }
    Ok(found)
}

/// `If-Match` of a write, `If-None-Match` of a read (RFC 9110, 13.1).
fn preconditions(
    route: &Route,
    headers: &HeaderMap,
) -> Result<(Option<u64>, Option<u64>), Failure> {
    let expect = match headers.get(header::IF_MATCH) {
        Some(_) if !route.conditional => {
            return Err(Failure::bad(
                "`if-match` is for writes of configuration: leave it out here",
            ));
        }
        Some(value) if value == "*" => None,
        Some(value) => {
            let tag = value.to_str().ok().and_then(|text| tag(text, false));
            // A tag that is none of ours matches nothing.
            Some(tag.ok_or_else(|| {
                Failure::new(
                    StatusCode::PRECONDITION_FAILED,
                    format!(
                        "`if-match` is {value:?}: send the `etag` of an earlier answer, such as \"7\""
                    ),
                )
            })?)
        }
        None => None,
    };
    let unless = match headers.get(header::IF_NONE_MATCH) {
        None => None,
        Some(value) if route.method == Method::Get => {
            value.to_str().ok().and_then(|text| tag(text, true))
        }
        Some(_) => {
            return Err(Failure::bad(
                "`if-none-match` is for reads: send `if-match` with the `etag` of an earlier answer",
            ));
        }
    };
    Ok((expect, unless))
}

/// The revision of an entity tag: the number in quotes. Weak ones compare in reads only.
fn tag(text: &str, weak: bool) -> Option<u64> {
    let text = text.trim();
    let text = match text.strip_prefix("W/") {
        Some(rest) if weak => rest,
        Some(_) => return None,
        None => text,
    };
    text.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length != "0")
}

async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Failure> {
    if !has_body(headers) {
        return Ok(Bytes::new());
    }
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("the body is of the type {kind:?}: send application/json"),
        ));
    }
    let too_large = || {
        Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {LARGEST_MESSAGE} bytes: split it"),
        )
    };
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > LARGEST_MESSAGE) {
        return Err(too_large());
    }
    let read = tokio::time::timeout(ARRIVAL, body::to_bytes(body, LARGEST_MESSAGE)).await;
    let Ok(read) = read else {
        let what = format!("the body did not arrive within {ARRIVAL:?}");
        return Err(Failure::new(StatusCode::REQUEST_TIMEOUT, what));
    };
    let bytes = read.map_err(|error| {
        let source = std::error::Error::source(&error);
        if source.is_some_and(|source| source.is::<LengthLimitError>()) {
            too_large()
        } else {
            Failure::bad(format!("the body was cut off: {error}"))
        }
    })?;
    // Small on the wire and large in memory: as for gRPC, by its commas.
    if bytes.iter().filter(|byte| **byte == b',').count() > MOST {
        let what = format!("the body has more than {MOST} elements: split it");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, what));
    }
    Ok(bytes)
}
