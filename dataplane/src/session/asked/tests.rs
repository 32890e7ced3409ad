use std::sync::Arc;

use super::*;
use crate::{call::ProtocolVersion, sealed::KeyRing, session::Sessions};

const REQUEST: &[u8] = br#"{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","params":{"_meta":{"progressToken":"t"},"x":1.10}}"#;

fn session(sessions: &Sessions, principal: &str) -> Arc<Session> {
    let version = ProtocolVersion::V2025_06_18;
    let declared = br#"{"sampling":{},"roots":null}"#;
    let id = sessions.create("p/a", principal, version, b"{}", declared);
    sessions.find(&id.unwrap(), "p/a", principal).unwrap()
}

fn asker(call: Option<CallId>) -> Asker<'static> {
    Asker {
        backend: "b",
        via: Via::Http {
            session: Some("s".to_owned()),
            version: "2025-06-18".to_owned(),
            address: "a".to_owned(),
        },
        call,
    }
}

fn ask(session: &Session, request: &[u8], call: Option<CallId>) -> Result<Bytes, Unasked> {
    let request = Bytes::copy_from_slice(request);
    let message = envelope::scan(&request).unwrap();
    session.question(&asker(call), &request, &message)
}

#[test]
fn a_question_comes_back_by_its_tokens_to_its_own_session_only() {
    let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
    let (own, other) = (session(&sessions, "p"), session(&sessions, "p"));
    let shown = ask(&own, REQUEST, None).unwrap();
    let message = envelope::scan(&shown).unwrap();
    let (id, progress) = (message.id.unwrap(), message.progress_token.unwrap());
    let asked = own.asked(Token::Id, &shown, id).unwrap();
    assert_eq!((asked.own.get(), asked.backend.as_str()), ("7", "b"));
    let asked = own.asked(Token::Progress, &shown, progress).unwrap();
    assert_eq!(asked.own.get(), "\"t\"");
    assert!(own.asked(Token::Progress, &shown, id).is_none());
    assert!(other.asked(Token::Id, &shown, id).is_none());
    let stranger = session(&sessions, "q");
    assert!(stranger.asked(Token::Id, &shown, id).is_none());
    assert!(memchr::memmem::find(&shown, b"\"x\":1.10").is_some());
}

#[test]
fn what_the_client_has_not_declared_is_not_asked() {
    let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
    let session = session(&sessions, "p");
    let asked = |method: &str| {
        let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
        ask(&session, request.as_bytes(), None).err()
    };
    assert_eq!(asked("sampling/createMessage"), None);
    assert_eq!(asked("acme/other"), None);
    for method in ["elicitation/create", "roots/list"] {
        assert_eq!(asked(method), Some(Unasked::NotDeclared), "{method}");
    }
}

#[test]
fn no_mode_at_all_means_forms() {
    for (declared, form, url) in [
        (r#"{"elicitation":{}}"#, true, false),
        (r#"{"elicitation":{"form":{}}}"#, true, false),
        (r#"{"elicitation":{"url":{}}}"#, false, true),
        (r#"{"elicitation":{"form":{},"url":{}}}"#, true, true),
        (r#"{"elicitation":{"url":null}}"#, true, false),
        ("{}", false, false),
    ] {
        let elicits = |mode| elicits(declared.as_bytes(), mode);
        assert_eq!((elicits("form"), elicits("url")), (form, url), "{declared}");
        assert!(!elicits("voice"));
    }
}

#[test]
fn a_call_waits_on_its_client_until_every_answer_has_come() {
    let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
    let session = session(&sessions, "p");
    let (call, other) = (CallId::of(b"1"), CallId::of(b"2"));
    let answer = |shown: &Bytes| {
        let id = envelope::scan(shown).unwrap().id.unwrap();
        session.paid(&session.asked(Token::Id, shown, id).unwrap());
    };
    let first = ask(&session, REQUEST, Some(call)).unwrap();
    let second = ask(&session, REQUEST, Some(call)).unwrap();
    assert_eq!(session.waits(other), Waits::Backend(None));
    answer(&first);
    assert_eq!(session.waits(call), Waits::Client);
    answer(&second);
    assert!(matches!(session.waits(call), Waits::Backend(Some(_))));
    for _ in 0..MOST {
        ask(&session, REQUEST, Some(other)).unwrap();
    }
    assert_eq!(
        ask(&session, REQUEST, Some(other)),
        Err(Unasked::TooMany),
        "one more"
    );
    session.settle(other);
    assert_eq!(session.waits(other), Waits::Backend(None));
}
