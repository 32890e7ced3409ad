use std::sync::atomic::Ordering;

use super::{known::Known, *};

const V: ProtocolVersion = ProtocolVersion::V2025_06_18;

#[test]
fn a_session_survives_on_a_node_that_has_never_met_it() {
    let (here, there) = (
        Sessions::new(KeyRing::of(&[[1; 32]])),
        Sessions::new(KeyRing::of(&[[1; 32]])),
    );
    let id = here
        .create("default/a", "p", V, br#"{"name":"c"}"#, br#"{"roots":{}}"#)
        .unwrap();
    let session = there.find(&id, "default/a", "p").unwrap();
    assert_eq!(
        (session.version, &session.capabilities[..]),
        (V, &br#"{"roots":{}}"#[..])
    );
}

#[test]
fn a_session_is_found_by_its_own_principal_and_gateway_only() {
    let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
    let id = sessions.create("default/a", "p", V, b"{}", b"{}").unwrap();
    assert!(sessions.find(&id, "default/a", "q").is_none());
    assert!(sessions.find(&id, "default/b", "p").is_none());
    assert!(sessions.find(&id, "default/a", "p").is_some());
}

#[test]
fn an_ended_session_stays_ended() {
    let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
    let id = sessions.create("default/a", "p", V, b"{}", b"{}").unwrap();
    let session = sessions.find(&id, "default/a", "p").unwrap();
    sessions.end(&id, &session);
    assert!(sessions.find(&id, "default/a", "p").is_none());
}

#[test]
fn a_session_that_ends_while_it_is_taken_up_stays_ended() {
    let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
    let id = sessions.create("default/a", "p", V, b"{}", b"{}").unwrap();
    // One request has found that it has not ended.
    let taken = sessions.live.lock().remove(&id).unwrap();
    sessions.end(&id, &taken);
    let taken = Arc::into_inner(taken).unwrap();
    assert!(sessions.keep(&id, taken).is_none());
    assert!(sessions.is_empty());
}

#[test]
fn who_opens_many_sessions_pushes_out_only_their_own() {
    let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
    *sessions.live.lock() = Known::with_room_for(160);
    let create = |principal| {
        let id = sessions.create("p/a", principal, V, b"{}", b"{}").unwrap();
        let session = sessions.find(&id, "p/a", principal).unwrap();
        (id, session)
    };
    // Long ago.
    let is_old = |(id, session): (String, Arc<Session>)| {
        session.last_used.store(1, Ordering::Relaxed);
        id
    };
    let others: Vec<_> = (0..10).map(|_| is_old(create("other"))).collect();
    let first = is_old(create("flood"));
    let (in_use, session) = create("flood");
    session.last_used.store(1, Ordering::Relaxed);
    let mut last = String::new();
    for _ in 0..1_000 {
        last = create("flood").0;
        assert!(sessions.len() <= 160);
    }
    let live = sessions.live.lock();
    assert!(others.iter().all(|id| live.get(id).is_some()));
    assert!(live.get(&in_use).is_some() && live.get(&last).is_some());
    assert!(live.get(&first).is_none());
}

#[test]
fn who_has_many_sessions_in_use_pushes_out_no_others_but_there_is_an_end_to_it() {
    let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
    *sessions.live.lock() = Known::with_room_for(160);
    let create = |principal| sessions.create("p/a", principal, V, b"{}", b"{}").unwrap();
    let other = create("other");
    let open = |_| sessions.find(&create("flood"), "p/a", "flood").unwrap();
    let mut in_use: Vec<_> = (0..300).map(open).collect();
    assert!(sessions.live.lock().get(&other).is_some());
    in_use.extend((0..100).map(open));
    assert!(sessions.live.lock().get(&other).is_none());
    assert_eq!(sessions.len(), in_use.len());
}

#[test]
fn new_keys_end_the_sessions_that_they_do_not_open() {
    let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
    let own = sessions.create("p/a", "p", V, b"{}", b"{}").unwrap();
    assert!(sessions.turn(KeyRing::of(&[[2; 32]])).is_empty());
    let first = sessions.create("p/a", "p", V, b"{}", b"{}").unwrap();
    assert!(sessions.turn(KeyRing::of(&[[3; 32], [2; 32]])).is_empty());
    for id in [&own, &first] {
        assert!(sessions.find(id, "p/a", "p").is_some());
    }
    assert_eq!(sessions.turn(KeyRing::of(&[[4; 32]])).len(), 1);
    assert!(sessions.find(&first, "p/a", "p").is_none());
    assert!(sessions.find(&own, "p/a", "p").is_some());
    sessions.replace_own(KeyRing::of(&[[5; 32]]));
    assert_eq!(sessions.turn(KeyRing::of(&[[4; 32]])).len(), 1);
    assert!(sessions.find(&own, "p/a", "p").is_none());
}

#[test]
fn the_sessions_of_a_principal_end_together() {
    let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
    let create = |gateway, principal| {
        sessions
            .create(gateway, principal, V, b"{}", b"{}")
            .unwrap()
    };
    let (a, b, other) = (create("p/a", "x"), create("q/b", "x"), create("p/a", "y"));
    assert_eq!(sessions.end_all("p", "x").len(), 1);
    assert!(sessions.find(&a, "p/a", "x").is_none(), "also by its id");
    assert!(sessions.find(&b, "q/b", "x").is_some());
    assert_eq!(sessions.end_all("", "x").len(), 1);
    assert!(sessions.find(&other, "p/a", "y").is_some());
}

#[test]
fn a_large_client_info_does_not_make_a_large_header() {
    let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
    let info = format!(
        r#"{{"name":"big","version":"1","icons":["{}"]}}"#,
        "x".repeat(10_000)
    );
    let id = sessions
        .create("default/a", "p", V, info.as_bytes(), b"{}")
        .unwrap();
    assert!(id.len() < 1024);
    let session = sessions.find(&id, "default/a", "p").unwrap();
    assert_eq!(&session.client_info[..], br#"{"name":"big","version":"1"}"#);
}
