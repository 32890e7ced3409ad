use super::*;
use crate::{
    auth::{Auth, Principal},
    call::{Method, ProtocolVersion, WorkerId},
    upstream::message::{incoming, outgoing},
};

fn call(params: &str) -> Call {
    let body = Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#
    ));
    Call {
        worker: WorkerId(0),
        version: ProtocolVersion::V2026_07_28,
        method: Method::ToolsCall,
        message: envelope::scan(&body).unwrap(),
        body,
        target: None,
        param_headers: Vec::new(),
        principal: Auth::anonymous(),
        session: None,
        rounds: Rounds::default(),
    }
}

fn in_scope(scope: &Arc<Scope>, params: &str) -> Call {
    let mut call = call(params);
    call.rounds.scope = Some(scope.clone());
    call
}

/// The state that a client gets when backend `b` answers with `result`.
fn asked(scope: &Arc<Scope>, params: &str, result: &str) -> String {
    let body = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#));
    let message = envelope::scan(&body).unwrap();
    let call = in_scope(scope, params);
    let answer = incoming(&call, "b", Era::Modern, None, body, &message).unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    answer["result"]["requestState"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// What backend `b` gets when a client sends this.
fn sent(scope: &Arc<Scope>, params: &str) -> Result<serde_json::Value, CallError> {
    let mut call = in_scope(scope, params);
    assert!(is_retry(&call));
    open(scope, "b", &mut call)?;
    let body = outgoing(&call, Era::Modern, None)?;
    let message: serde_json::Value = serde_json::from_slice(&body).unwrap();
    Ok(message["params"].clone())
}

const PARAMS: &str = r#"{"name":"t","arguments":{"a":1,"b":[2.50,{"c":"d"}]}}"#;

fn again(state: &str) -> String {
    format!(
        r#"{{"requestState":"{state}","_meta":{{"x":2}},"inputResponses":{{"k":1}},"arguments":{{"b":[2.50, {{"c":"\u0064"}}],"a":1}},"name":"t"}}"#
    )
}

#[test]
fn a_backend_gets_its_own_state_back_whatever_it_is() {
    let scope = Scope::of_tests();
    for (own, expected) in [
        (
            r#","requestState":"st\"ate""#,
            Some(serde_json::json!("st\"ate")),
        ),
        (r#","requestState":"""#, Some(serde_json::json!(""))),
        (r#","requestState":null"#, None),
        ("", None),
    ] {
        let state = asked(
            &scope,
            PARAMS,
            &format!(r#"{{"resultType":"input_required"{own}}}"#),
        );
        let params = sent(&scope, &again(&state)).unwrap();
        assert_eq!(params.get("requestState"), expected.as_ref(), "{own}");
        assert_eq!(params["inputResponses"]["k"], 1);
    }
}

#[test]
fn a_state_is_good_for_its_own_request_backend_principal_and_gateway_only() {
    let scope = Scope::of_tests();
    let state = asked(&scope, PARAMS, r#"{"resultType":"input_required"}"#);
    let refused = |scope: &Arc<Scope>, params: &str| {
        let error = sent(scope, params).unwrap_err();
        let (code, status) = (error.code(), error.status(Era::Modern));
        assert_eq!(
            (code, status),
            (INVALID_PARAMS, StatusCode::BAD_REQUEST),
            "{params}"
        );
    };
    for (what, instead) in [
        (r#""a":1"#, r#""a":2"#),
        (r#""a":1"#, r#""a":1.0"#),
        (r#""a":1"#, r#""a":1,"more":true"#),
        (r#""name":"t""#, r#""name":"u""#),
        (r#""name":"t""#, r#""name":"t","task":{}"#),
        (state.as_str(), "guessed"),
        (&state[1..], &state[2..]),
        (&format!("\"{state}\""), "7"),
        (&format!("\"{state}\""), "null"),
    ] {
        let params = again(&state);
        assert!(params.contains(what), "{what}");
        refused(&scope, &params.replace(what, instead));
    }
    refused(&Scope::of_tests_at("default/other"), &again(&state));

    let mut stolen = in_scope(&scope, &again(&state));
    stolen.principal = Arc::new(Principal {
        id: "bearer:1".to_owned(),
    });
    assert!(open(&scope, "b", &mut stolen).is_err());
    let mut elsewhere = in_scope(&scope, &again(&state));
    assert!(open(&scope, "c", &mut elsewhere).is_err());
}

#[test]
fn rounds_follow_each_other() {
    let scope = Scope::of_tests();
    let first = asked(
        &scope,
        PARAMS,
        r#"{"resultType":"input_required","requestState":"1"}"#,
    );
    let second = asked(
        &scope,
        &again(&first),
        r#"{"resultType":"input\u005frequired","requestState":"2"}"#,
    );
    assert_eq!(sent(&scope, &again(&second)).unwrap()["requestState"], "2");
}

#[test]
fn a_result_that_asks_for_nothing_is_left_as_it_is() {
    let body = Bytes::from_static(
        br#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","requestState":"own"}}"#,
    );
    let message = envelope::scan(&body).unwrap();
    let call = in_scope(&Scope::of_tests(), PARAMS);
    let answer = incoming(&call, "b", Era::Modern, None, body.clone(), &message).unwrap();
    assert_eq!(answer.body, body);
}
