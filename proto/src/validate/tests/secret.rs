//! Secrets, and who may use them.

use super::{assert_one, resources, wrong};
use crate::{
    key::{Key, Kind},
    validate::{validate, validate_encoded},
};

const TOKEN: &str = "{ kind: Secret, name: token, value: v4lue, backends: [api, 'web-*'] }\n---\n";

fn user(backend: &str, field: &str) -> String {
    format!("{TOKEN}{{ kind: Backend, name: {backend}, {field} }}")
}

#[test]
fn a_backend_on_the_list_may_use_a_secret_in_url_headers_token_and_environment() {
    for field in [
        "http: { url: 'http://h/${secret:token}' }",
        "http: { url: 'http://h/', headers: { X-Key: '${secret:token}' } }",
        "http: { url: 'http://h/', bearer_token: 'a${secret:token}b' }",
        "stdio: { command: c, env: { KEY: '${secret:token}' } }",
    ] {
        assert_one(&user("api", field), "");
        assert_one(&user("web-1", field), "");
        assert_one(
            &user("other", field),
            "Secret token does not list backend other",
        );
    }
}

#[test]
fn a_secret_that_is_not_there_or_of_another_project_cannot_be_used() {
    let field = "http: { url: 'http://h/', bearer_token: '${secret:tokne}' }";
    assert_one(
        &user("api", field),
        "there is no Secret tokne in project default: did you mean `token`?",
    );
    let field = "project: p, http: { url: 'http://h/', bearer_token: '${secret:token}' }";
    assert_one(&user("api", field), "there is no Secret token in project p");
}

#[test]
fn what_others_can_see_of_a_process_takes_no_secret_and_neither_does_a_policy() {
    for field in [
        "command: '${secret:token}'",
        "command: c, args: ['${secret:token}']",
        "command: c, cwd: '/${secret:token}'",
    ] {
        assert_one(
            &user("api", &format!("stdio: {{ {field} }}")),
            "other users of the machine can see",
        );
    }
    let policy = "{ kind: AuthPolicy, name: p, bearer: { tokens: ['${secret:token}'] } }";
    assert_one(&format!("{TOKEN}{policy}"), "which only backends can use");
}

#[test]
fn a_secret_lists_backends() {
    assert_one(
        "{ kind: Secret, name: s, value: v }",
        "backends: is missing or empty",
    );
    assert_one(
        "{ kind: Secret, name: s, backends: ['a b'] }",
        "backends[0]",
    );
    assert_one(
        "{ kind: Secret, name: s, backends: ['[a]*'] }",
        "backends[0]",
    );
    assert_eq!(wrong("{ kind: Secret, name: s, backends: ['*'] }"), [""; 0]);
}

#[test]
fn no_set_holds_the_value_and_one_that_arrives_with_it_is_refused() {
    let plain = "{ kind: Secret, name: s, value: v4lue, backends: [a] }";
    let valid = validate(resources(plain)).unwrap();
    let key = Key::new("", Kind::Secret, "s");
    let body = valid.get(&key).unwrap().body();
    assert!(!body.windows(5).any(|w| w == b"v4lue"));
    assert_eq!(valid.secrets().count(), 1);

    use prost::Message;
    let mut whole = resources(plain).remove(0);
    if let Some(crate::v1::resource::Kind::Secret(secret)) = &mut whole.kind {
        secret.project = "default".to_owned();
    }
    let refused = validate_encoded([(key, whole.encode_to_vec())]).unwrap_err();
    assert!(
        refused[0].message.contains("not in the form"),
        "{refused:?}"
    );
}
