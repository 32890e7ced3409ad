//! The REST door, as `curl` sees it.

use fleet_proto::v1::{DeleteResponse, GetRevisionResponse, ListResponse};
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};

use super::*;

/// A request of the REST API; no token where it is empty.
fn request(plane: &Plane, token: &str, method: Method, path: &str) -> RequestBuilder {
    let address = plane.running.rest_addr().unwrap();
    let request = reqwest::Client::new().request(method, format!("http://{address}{path}"));
    if token.is_empty() {
        request
    } else {
        request.bearer_auth(token)
    }
}

fn get(plane: &Plane, path: &str) -> RequestBuilder {
    request(plane, &plane.admin, Method::GET, path)
}

fn put(plane: &Plane, path: &str, body: &Value) -> RequestBuilder {
    request(plane, &plane.admin, Method::PUT, path).json(body)
}

fn post(plane: &Plane, path: &str, body: &Value) -> RequestBuilder {
    request(plane, &plane.admin, Method::POST, path).json(body)
}

/// Status, entity tag and body.
async fn answer(request: RequestBuilder) -> (u16, String, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let tag = response.headers().get(header::ETAG);
    let tag = tag.map_or("", |tag| tag.to_str().unwrap()).to_owned();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, tag, body)
}

/// A refusal, which must be problem details.
async fn refusal(request: RequestBuilder, status: StatusCode) -> Value {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), status);
    let kind = &response.headers()[header::CONTENT_TYPE];
    assert_eq!(kind, "application/problem+json");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["status"], status.as_u16());
    assert_eq!(body["title"], status.canonical_reason().unwrap());
    assert!(body["detail"].is_string(), "{body}");
    body
}

fn files(url: &str) -> Value {
    json!({"http": {"url": url}, "timeout": "5s"})
}

const URL: &str = "http://127.0.0.1:3001/mcp";

#[tokio::test]
async fn a_resource_is_written_read_replaced_and_removed() {
    let plane = Plane::start().await;
    let path = "/api/v1/backends/files";
    let (status, tag, made) = answer(put(&plane, path, &files(URL))).await;
    assert_eq!((status, tag.as_str()), (201, "\"1\""));
    assert_eq!(made["changes"][0]["action"], "ACTION_CREATED");

    let (status, tag, found) = answer(get(&plane, path)).await;
    assert_eq!((status, tag.as_str()), (200, "\"1\""));
    let whole =
        json!({"name": "files", "project": "default", "http": {"url": URL}, "timeout": "5s"});
    assert_eq!(found, whole, "what is read can be written again");
    let (status, tag, same) = answer(put(&plane, path, &found)).await;
    assert_eq!((status, tag.as_str()), (200, "\"1\""));
    assert_eq!(same["changes"][0]["action"], "ACTION_UNCHANGED");

    // gRPC sees the same.
    assert_eq!(plane.list().await.resources.len(), 1);
    let (_, tag, list) = answer(get(&plane, "/api/v1/backends?project=default")).await;
    let list: ListResponse = serde_json::from_value(list).unwrap();
    assert_eq!((tag.as_str(), list), ("\"1\"", plane.list().await));
    let (_, _, none) = answer(get(&plane, "/api/v1/gateways")).await;
    assert_eq!(none["resources"], Value::Null);
    let (_, _, all) = answer(get(&plane, "/api/v1/resources?kind=Backend")).await;
    assert_eq!(all["resources"].as_array().unwrap().len(), 1);

    let dry = request(
        &plane,
        &plane.admin,
        Method::DELETE,
        &format!("{path}?dry_run=true"),
    );
    assert_eq!(answer(dry).await.0, 200);
    let gone = request(
        &plane,
        &plane.admin,
        Method::DELETE,
        &format!("{path}?message=old"),
    );
    let (status, tag, gone) = answer(gone).await;
    assert_eq!((status, tag.as_str()), (200, "\"2\""));
    let gone: DeleteResponse = serde_json::from_value(gone).unwrap();
    assert_eq!(
        actions(&gone.changes),
        [("files".to_owned(), Action::Deleted)]
    );
    assert_eq!(plane.revisions().await.revisions[0].message, "old");
    refusal(get(&plane, path), StatusCode::NOT_FOUND).await;
    let again = request(&plane, &plane.admin, Method::DELETE, path);
    refusal(again, StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn if_match_refuses_a_write_on_top_of_another_one() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let path = "/api/v1/backends/a";
    let with = |tag: &str| put(&plane, path, &files(URL)).header(header::IF_MATCH, tag);
    for tag in ["\"0\"", "\"2\"", "W/\"1\"", "\"of somebody else\""] {
        refusal(with(tag), StatusCode::PRECONDITION_FAILED).await;
    }
    let (status, tag, _) = answer(with("\"1\"")).await;
    assert_eq!((status, tag.as_str()), (200, "\"2\""));
    let body = refusal(with("\"1\""), StatusCode::PRECONDITION_FAILED).await;
    let detail = body["detail"].as_str().unwrap();
    assert!(
        detail.contains("revision 1") && detail.contains("revision 2"),
        "{detail}"
    );
    assert_eq!(answer(with("*")).await.0, 200);

    let body = json!({"expect_revision": "7"});
    refusal(
        post(&plane, "/api/v1/apply", &body),
        StatusCode::PRECONDITION_FAILED,
    )
    .await;
    let both = post(&plane, "/api/v1/apply", &body).header(header::IF_MATCH, "\"2\"");
    refusal(both, StatusCode::BAD_REQUEST).await;

    let known = get(&plane, path).header(header::IF_NONE_MATCH, "W/\"2\"");
    assert_eq!(answer(known).await.0, 304);
    let older = get(&plane, path).header(header::IF_NONE_MATCH, "\"1\"");
    assert_eq!(answer(older).await.0, 200);
    let create = put(&plane, path, &files(URL)).header(header::IF_NONE_MATCH, "*");
    refusal(create, StatusCode::BAD_REQUEST).await;
}

#[tokio::test]
async fn what_does_not_fit_together_is_listed_whole() {
    let plane = Plane::start().await;
    let resources = json!([
        {"backend": {"name": "a", "http": {"url": "ftp://x"}}},
        {"gateway": {"name": "g", "path": "/g", "backends": ["nobody"]}},
    ]);
    let body = json!({"resources": resources});
    let refused = refusal(
        post(&plane, "/api/v1/apply", &body),
        StatusCode::UNPROCESSABLE_ENTITY,
    );
    let refused = refused.await;
    let problems = refused["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{refused}");
    assert_eq!(problems[0]["path"], "http.url");
    assert_eq!(problems[1]["key"]["kind"], "Gateway");
    let (status, _, checked) = answer(post(&plane, "/api/v1/validate", &body)).await;
    assert_eq!((status, &checked["problems"]), (200, &refused["problems"]));
    assert_eq!(plane.list().await.revision, 0);
}

#[tokio::test]
async fn nothing_that_is_not_understood_is_dropped() {
    let plane = Plane::start().await;
    let bad = StatusCode::BAD_REQUEST;
    let body = json!({"resources": [{"backend": {"name": "a", "timout": "5s"}}]});
    let told = refusal(post(&plane, "/api/v1/apply", &body), bad).await;
    let detail = told["detail"].as_str().unwrap();
    assert!(
        detail.contains("resources[0]") && detail.contains("timout"),
        "{detail}"
    );

    let path = "/api/v1/backends/a";
    for (request, told) in [
        (
            put(&plane, path, &json!({"http": {"url": URL}, "nme": "a"})),
            "nme",
        ),
        (put(&plane, path, &json!({"name": "b"})), "name"),
        (put(&plane, path, &json!({"project": "b"})), "project"),
        (
            put(&plane, &format!("{path}?dryrun=true"), &files(URL)),
            "dryrun",
        ),
        (
            put(&plane, &format!("{path}?dry_run=maybe"), &files(URL)),
            "maybe",
        ),
        (get(&plane, "/api/v1/revisions?limit=-1"), "limit"),
        (get(&plane, "/api/v1/revisions?limit=1&limit=2"), "twice"),
        (get(&plane, "/api/v1/revisions/one"), "whole number"),
        (get(&plane, "/api/v1/resources?kind=Bakend"), "Bakend"),
        (
            get(&plane, path).header(header::IF_MATCH, "\"1\""),
            "if-match",
        ),
        (get(&plane, path).json(&json!({})), "body"),
        (post(&plane, "/api/v1/apply", &json!([])), "body"),
        (
            request(&plane, &plane.admin, Method::POST, "/api/v1/apply")
                .header(header::CONTENT_TYPE, "application/json")
                .body("{} {}"),
            "trailing",
        ),
    ] {
        let body = refusal(request, bad).await;
        assert!(
            body["detail"].as_str().unwrap().contains(told),
            "{told}: {body}"
        );
    }
    let form = request(&plane, &plane.admin, Method::POST, "/api/v1/apply")
        .header(header::CONTENT_TYPE, "application/yaml")
        .body("resources: []");
    refusal(form, StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    let large = request(&plane, &plane.admin, Method::POST, "/api/v1/apply")
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .body(vec![b' '; crate::LARGEST_MESSAGE + 1]);
    refusal(large, StatusCode::PAYLOAD_TOO_LARGE).await;
    assert_eq!(plane.list().await.revision, 0);
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_say_so() {
    let plane = Plane::start().await;
    for path in ["/api/v1/nothing", "/api/v1", "/", "/api/v1/backends/a/b"] {
        refusal(get(&plane, path), StatusCode::NOT_FOUND).await;
    }
    for path in ["/api/v1/nodes", "/livez", "/api/v1/openapi.json"] {
        let response = post(&plane, path, &json!({})).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(response.headers()[header::ALLOW], "GET,HEAD", "{path}");
        let kind = &response.headers()[header::CONTENT_TYPE];
        assert_eq!(kind, "application/problem+json");
    }
}

#[tokio::test]
async fn every_path_of_the_document_needs_a_token_unless_it_says_otherwise() {
    let plane = Plane::start().await;
    let document = request(&plane, "", Method::GET, "/api/v1/openapi.json");
    let (status, _, document) = answer(document).await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let path = path.replace("{name}", "a").replace("{number}", "1");
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let open = operation["security"] == json!([]);
            for token in ["", "wrong", &plane.node] {
                let asked = request(&plane, token, method.clone(), &path);
                let response = asked.send().await.unwrap();
                let status = response.status();
                let refused = status == StatusCode::UNAUTHORIZED;
                assert_eq!(refused, !open, "{method} {path}: {status}");
                let challenge = response.headers().get(header::WWW_AUTHENTICATE);
                assert_eq!(challenge.is_some(), !open);
                assert_eq!(
                    challenge.is_some_and(|c| c.to_str().unwrap().contains("error=")),
                    !open && !token.is_empty()
                );
            }
            // With a token it is there, whatever it says to an empty request.
            let asked = request(&plane, &plane.admin, method.clone(), &path);
            let response = asked.send().await.unwrap();
            assert_ne!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
            let text = response.text().await.unwrap();
            assert!(
                !text.contains("there is nothing at"),
                "{method} {path}: {text}"
            );
        }
    }
}

#[tokio::test]
async fn probes_and_numbers_need_no_token() {
    let plane = Plane::start().await;
    plane.connect_synced("n1").await;
    plane.apply(vec![backend("a")]).await;
    let stale = ApplyRequest {
        expect_revision: Some(9),
        ..apply(vec![backend("b")])
    };
    plane.client().await.apply(stale).await.unwrap_err();
    for path in ["/livez", "/readyz"] {
        let (status, _, _) = answer(request(&plane, "", Method::GET, path)).await;
        assert_eq!(status, 200, "{path}");
    }
    let (_, _, text) = answer(request(&plane, "", Method::GET, "/metrics")).await;
    let text = text.as_str().unwrap();
    for line in [
        "mcp_fleet_revision 1",
        "mcp_fleet_resources 1",
        "mcp_fleet_nodes{state=\"offline\"} 1",
        "mcp_fleet_writes_total{outcome=\"changed\"} 1",
        "mcp_fleet_writes_total{outcome=\"conflict\"} 1",
        "# TYPE mcp_fleet_writes_total counter",
    ] {
        let there = text.lines().any(|found| found == line);
        // The node has gone, or is about to be noticed as gone.
        assert!(there || line.contains("offline"), "{line}\n{text}");
    }
}

#[tokio::test]
async fn revisions_nodes_and_the_caller_are_shown() {
    let plane = Plane::start().await;
    let (_node, _) = plane.connect_synced("n1").await;
    plane.apply(vec![backend("a")]).await;
    plane.apply(vec![backend("b")]).await;
    let (_, _, list) = answer(get(&plane, "/api/v1/revisions?limit=1")).await;
    let list: RevisionsResponse = serde_json::from_value(list).unwrap();
    assert_eq!(list.revisions[..], plane.revisions().await.revisions[..1]);
    let (_, _, one) = answer(get(&plane, "/api/v1/revisions/1?resources=true")).await;
    let one: GetRevisionResponse = serde_json::from_value(one).unwrap();
    assert_eq!(one.revision.unwrap().number, 1);
    assert_eq!(actions(&one.changes), [("a".to_owned(), Action::Created)]);
    assert_eq!(one.resources, plane.list().await.resources[..1]);
    refusal(get(&plane, "/api/v1/revisions/9"), StatusCode::NOT_FOUND).await;
    let (_, _, nodes) = answer(get(&plane, "/api/v1/nodes")).await;
    assert_eq!(nodes["nodes"][0]["node_id"], "n1");
    let (_, _, me) = answer(get(&plane, "/api/v1/whoami")).await;
    assert_eq!(me["token"]["role"], "TOKEN_ROLE_ADMIN");

    let rollback = "/api/v1/revisions/1/rollback";
    let wrong = json!({"revision": "2"});
    refusal(post(&plane, rollback, &wrong), StatusCode::BAD_REQUEST).await;
    // The body may be left out.
    let back = request(&plane, &plane.admin, Method::POST, rollback);
    let (status, tag, _) = answer(back.header(header::IF_MATCH, "\"2\"")).await;
    assert_eq!((status, tag.as_str()), (200, "\"3\""));
    assert_eq!(plane.list().await.resources.len(), 1);
}

#[tokio::test]
async fn roles_and_projects_hold_here_too() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let wanted = json!({"name": "ci", "role": "TOKEN_ROLE_VIEWER", "projects": ["b"]});
    let (status, _, made) = answer(post(&plane, "/api/v1/tokens", &wanted)).await;
    assert_eq!(status, 201);
    refusal(
        post(&plane, "/api/v1/tokens", &wanted),
        StatusCode::CONFLICT,
    )
    .await;
    let value = made["value"].as_str().unwrap();
    let ci = |method, path| request(&plane, value, method, path);

    let hidden = ci(Method::GET, "/api/v1/backends/a");
    refusal(hidden, StatusCode::NOT_FOUND).await;
    let (_, _, list) = answer(ci(Method::GET, "/api/v1/backends")).await;
    assert_eq!(list, json!({"revision": "1"}));
    for (method, path, told) in [
        (Method::PUT, "/api/v1/backends/x?project=b", "role editor"),
        (Method::DELETE, "/api/v1/backends/a", "role editor"),
        (Method::POST, "/api/v1/revisions/1/rollback", "role editor"),
        (Method::GET, "/api/v1/tokens", "role admin"),
        (Method::DELETE, "/api/v1/tokens/ci", "role admin"),
    ] {
        let mut asked = ci(method.clone(), path);
        if method == Method::PUT {
            asked = asked.json(&files(URL));
        }
        let body = refusal(asked, StatusCode::FORBIDDEN).await;
        assert!(body["detail"].as_str().unwrap().contains(told), "{body}");
    }
    let other = ci(Method::PUT, "/api/v1/backends/x?dry_run=true").json(&files(URL));
    let body = refusal(other, StatusCode::FORBIDDEN).await;
    assert!(
        body["detail"].as_str().unwrap().contains("project b only"),
        "{body}"
    );

    let revoke = request(&plane, &plane.admin, Method::DELETE, "/api/v1/tokens/ci");
    assert_eq!(answer(revoke).await.0, 200);
    refusal(ci(Method::GET, "/api/v1/whoami"), StatusCode::UNAUTHORIZED).await;
    let (_, _, log) = answer(get(&plane, "/api/v1/audit?limit=1")).await;
    assert_eq!(log["entries"][0]["action"], "token.revoke");
}
