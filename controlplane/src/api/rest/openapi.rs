//! The OpenAPI 3.1 document, made from the table of routes and from the descriptors
//! and comments of `fleet/v1/*.proto`: there is no second description of either.

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Value as Json, json};

use super::{
    Method,
    handlers::LINES,
    routes::{self, Route, Value},
};

mod schema;

use schema::Schemas;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// The document. It is the same for everybody and holds no configuration.
pub(super) async fn serve() -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, DOCUMENT.as_str()).into_response()
}

fn document() -> Json {
    let mut schemas = Schemas::default();
    let mut paths: BTreeMap<String, BTreeMap<&str, Json>> = BTreeMap::new();
    for route in routes::all() {
        let operation = operation(&route, &mut schemas);
        let path = paths.entry(route.path).or_default();
        path.insert(route.method.as_str(), operation);
    }
    for (path, summary, text) in [
        ("/livez", "Whether the process answers.", "text/plain"),
        ("/readyz", "Whether it takes calls.", "text/plain"),
        ("/metrics", "Numbers for Prometheus.", "text/plain"),
        ("/api/v1/openapi.json", "This document.", "application/json"),
    ] {
        let operation = json!({
            "summary": summary,
            "security": [],
            "responses": {"200": {"description": "OK", "content": {text: {}}}},
        });
        paths
            .entry(path.to_owned())
            .or_default()
            .insert("get", operation);
    }
    let problem = schemas.reference("Problem");
    let mut schemas = schemas.all();
    schemas.insert("ProblemDetails".to_owned(), problem_details(&problem));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "mcp-fleet control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Reads and writes the configuration of a fleet. Bodies are the messages \
                of fleet/v1/*.proto in the JSON mapping of proto3 with the names of the .proto files; \
                64-bit numbers are written as strings, and fields at their default are left out.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {
                "type": "http",
                "scheme": "bearer",
                "description": "The admin token, or one made by POST /api/v1/tokens.",
            }},
        },
    })
}

fn operation(route: &Route, schemas: &mut Schemas) -> Json {
    let mut parameters = path_parameters(&route.path);
    parameters.extend(route.query.iter().map(|param| {
        let schema = match param.value {
            Value::Text => json!({"type": "string"}),
            Value::Number | Value::Limit => json!({"type": "integer", "minimum": 0}),
            Value::Flag => json!({"type": "boolean"}),
        };
        json!({
            "name": param.name,
            "in": "query",
            "description": param.about,
            "schema": schema,
        })
    }));
    if route.conditional {
        parameters.push(json!({
            "name": "If-Match",
            "in": "header",
            "description": "The `ETag` of an earlier answer: refuse with 412 unless that revision \
                is still the newest.",
            "schema": {"type": "string"},
        }));
    }
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses(route, schemas),
    });
    if let Some(body) = route.body {
        operation["requestBody"] = json!({
            "required": !body.optional,
            "content": {"application/json": {"schema": schemas.reference(body.message)}},
        });
    }
    operation
}

fn path_parameters(path: &str) -> Vec<Json> {
    let names = path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let schema = if name == "number" {
            json!({"type": "integer", "minimum": 0})
        } else {
            json!({"type": "string"})
        };
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    };
    names.map(parameter).collect()
}

fn responses(route: &Route, schemas: &mut Schemas) -> Json {
    let mut responses = serde_json::Map::new();
    for status in route.statuses {
        let kind = if route.lines {
            LINES
        } else {
            "application/json"
        };
        let mut response = json!({
            "description": if *status == 201 { "Created" } else { "OK" },
            "content": {kind: {"schema": schemas.reference(route.answer)}},
        });
        if route.conditional {
            response["headers"] = json!({"ETag": {
                "description": "The revision, in quotes.",
                "schema": {"type": "string"},
            }});
        }
        responses.insert(status.to_string(), response);
    }
    let mut problem = |status: &str, description: &str| {
        let schema = json!({"$ref": "#/components/schemas/ProblemDetails"});
        let content = json!({"application/problem+json": {"schema": schema}});
        let response = json!({"description": description, "content": content});
        responses.insert(status.to_owned(), response);
    };
    problem("401", "No token, or one that is not good");
    problem("403", "Beyond the role or the projects of the token");
    if route.path.contains('{') {
        problem("404", "Not found, or not in the projects of the token");
    }
    if route.body.is_some() {
        problem("413", "The body is too large");
        problem("415", "The body is not application/json");
    }
    if route.conditional {
        problem("412", "Another revision is the newest");
        problem("422", "What would result from it does not fit together");
    }
    if route.method == Method::Post && route.statuses.contains(&201) {
        problem("409", "There is one of this name");
    }
    problem("default", "The request was not carried out");
    Json::Object(responses)
}

/// RFC 9457, 3.
fn problem_details(problem: &Json) -> Json {
    json!({
        "type": "object",
        "description": "Why a request was not carried out (RFC 9457).",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What was wrong and what to do."},
            "problems": {
                "type": "array",
                "items": problem,
                "description": "Everything that does not fit together.",
            },
        },
    })
}

#[cfg(test)]
mod tests;
