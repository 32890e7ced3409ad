//! The admin API: writes, reads, revisions.

use std::time::Instant;

use fleet_proto::v1::{Action, DeleteRequest, GetRequest, ValidateRequest};
use tonic::Code;

use super::*;

#[tokio::test]
async fn an_apply_makes_one_revision_and_says_what_happened_to_each_resource() {
    let plane = Plane::start().await;
    let mut client = plane.client().await;
    let request = ApplyRequest {
        message: "first".to_owned(),
        ..apply(vec![backend("a"), backend("b")])
    };
    let first = client.apply(request).await.unwrap().into_inner();
    assert_eq!((first.revision, first.changed), (1, true));

    let changed = vec![
        backend("c"),
        backend("a"),
        backend_at("b", "http://127.0.0.1:1/mcp"),
    ];
    let second = client
        .apply(apply(changed.clone()))
        .await
        .unwrap()
        .into_inner();
    let expected = [
        ("c", Action::Created),
        ("a", Action::Unchanged),
        ("b", Action::Configured),
    ];
    assert_eq!(
        actions(&second.changes),
        expected.map(|(n, a)| (n.to_owned(), a))
    );
    assert_eq!(second.revision, 2);

    let third = client.apply(apply(changed)).await.unwrap().into_inner();
    assert_eq!(
        (third.revision, third.changed),
        (2, false),
        "an unchanged state keeps its number"
    );

    let revisions = plane.revisions().await;
    let told: Vec<_> = revisions
        .revisions
        .iter()
        .map(|r| {
            (
                r.number,
                r.author.as_str(),
                r.message.as_str(),
                r.created,
                r.configured,
                r.deleted,
            )
        })
        .collect();
    assert_eq!(
        told,
        [(2, "admin", "", 1, 1, 0), (1, "admin", "first", 2, 0, 0)]
    );
}

#[tokio::test]
async fn a_refused_apply_changes_nothing_and_lists_its_problems() {
    let plane = Plane::start().await;
    let mut client = plane.client().await;
    let wrong = vec![
        backend("good"),
        gateway("g", &["missing"]),
        backend_at("bad", "ftp://x"),
    ];
    let status = client.apply(apply(wrong.clone())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().contains("Gateway g"),
        "{}",
        status.message()
    );
    let names: Vec<_> = problems(&status)
        .into_iter()
        .map(|p| (p.key.unwrap().name, p.path))
        .collect();
    assert_eq!(
        names,
        [("g", "backends[0]"), ("bad", "http.url")].map(|(n, p)| (n.into(), p.into()))
    );

    let validated = client
        .validate(ValidateRequest { resources: wrong })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(validated.problems, problems(&status));
    let list = plane.list().await;
    assert_eq!((list.resources.len(), list.revision), (0, 0));
}

#[tokio::test]
async fn the_same_key_twice_in_one_apply_is_a_problem() {
    let plane = Plane::start().await;
    let twice = vec![backend("a"), backend_at("a", "http://127.0.0.1:2/mcp")];
    let status = plane.client().await.apply(apply(twice)).await.unwrap_err();
    assert!(problems(&status)[0].message.contains("twice"), "{status}");
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_do_and_does_not_do_it() {
    let plane = Plane::start().await;
    let mut client = plane.client().await;
    plane.apply(vec![backend("a")]).await;
    let dry = ApplyRequest {
        dry_run: true,
        ..apply(vec![backend("b")])
    };
    let answer = client.apply(dry).await.unwrap().into_inner();
    assert_eq!(
        actions(&answer.changes),
        [("b".to_owned(), Action::Created)]
    );
    assert_eq!((answer.revision, answer.changed), (2, true));

    let keys = vec![wire_key(Kind::Backend, "a")];
    let dry = DeleteRequest {
        keys,
        dry_run: true,
        ..Default::default()
    };
    let answer = client.delete(dry).await.unwrap().into_inner();
    assert_eq!(
        actions(&answer.changes),
        [("a".to_owned(), Action::Deleted)]
    );

    let list = plane.list().await;
    assert_eq!((list.resources.len(), list.revision), (1, 1));
}

#[tokio::test]
async fn a_write_that_expects_another_revision_is_refused_with_both_numbers() {
    let plane = Plane::start().await;
    let mut client = plane.client().await;
    plane.apply(vec![backend("a")]).await;
    let late = ApplyRequest {
        expect_revision: Some(0),
        ..apply(vec![backend("b")])
    };
    let status = client.apply(late.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("revision 0") && status.message().contains("revision 1"));
    let right = ApplyRequest {
        expect_revision: Some(1),
        ..late
    };
    assert_eq!(client.apply(right).await.unwrap().into_inner().revision, 2);
}

#[tokio::test]
async fn resources_are_read_by_key_and_listed_in_order() {
    let plane = Plane::start().await;
    let mut client = plane.client().await;
    plane
        .apply(vec![gateway("g", &["b"]), backend("b"), backend("a")])
        .await;

    let key = Some(ResourceKey {
        project: String::new(),
        ..wire_key(Kind::Backend, "b")
    });
    let got = client.get(GetRequest { key }).await.unwrap().into_inner();
    assert_eq!(
        Key::of(&got.resource.unwrap()),
        Some(Key::new("default", Kind::Backend, "b"))
    );
    let absent = GetRequest {
        key: Some(wire_key(Kind::Gateway, "b")),
    };
    let status = client.get(absent).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "not found: Gateway b")
    );

    let names = |list: Vec<Resource>| -> Vec<_> {
        list.iter()
            .map(|r| Key::of(r).unwrap().to_string())
            .collect()
    };
    let all = plane.list().await.resources;
    assert_eq!(names(all), ["Backend a", "Backend b", "Gateway g"]);
    let gateways = ListRequest {
        kind: "Gateway".to_owned(),
        ..Default::default()
    };
    let gateways = client.list(gateways).await.unwrap().into_inner().resources;
    assert_eq!(names(gateways), ["Gateway g"]);
    let elsewhere = ListRequest {
        project: "other".to_owned(),
        ..Default::default()
    };
    assert!(
        client
            .list(elsewhere)
            .await
            .unwrap()
            .into_inner()
            .resources
            .is_empty()
    );
    let unknown = ListRequest {
        kind: "Bakend".to_owned(),
        ..Default::default()
    };
    let status = client.list(unknown).await.unwrap_err();
    assert!(
        status.code() == Code::InvalidArgument && status.message().contains("Backend, Gateway")
    );
}

#[tokio::test]
async fn a_delete_removes_what_exists_and_nothing_that_others_refer_to() {
    let plane = Plane::start().await;
    let mut client = plane.client().await;
    plane
        .apply(vec![backend("a"), backend("b"), gateway("g", &["b"])])
        .await;
    let delete = |names: &[(Kind, &str)]| DeleteRequest {
        keys: names
            .iter()
            .map(|(kind, name)| wire_key(*kind, name))
            .collect(),
        ..Default::default()
    };

    let status = client
        .delete(delete(&[(Kind::Backend, "a"), (Kind::Backend, "x")]))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "not found: Backend x")
    );
    let status = client
        .delete(delete(&[(Kind::Backend, "b")]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(problems(&status)[0].key, Some(wire_key(Kind::Gateway, "g")));

    let both = delete(&[(Kind::Backend, "b"), (Kind::Gateway, "g")]);
    let answer = client.delete(both).await.unwrap().into_inner();
    assert_eq!(answer.revision, 2);
    let list = plane.list().await;
    assert_eq!(list.resources.len(), 1);
}

#[tokio::test]
async fn racing_applies_make_a_linear_history() {
    let plane = Plane::start().await;
    let write = |n: usize| {
        let plane = &plane;
        async move { plane.apply(vec![backend(&format!("b{n}"))]).await }
    };
    let mut numbers = futures_util::future::join_all((0..16).map(write)).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=16).collect::<Vec<_>>());
    let list = plane.list().await;
    assert_eq!((list.resources.len(), list.revision), (16, 16));
}

#[tokio::test]
async fn ten_thousand_backends_are_one_apply_and_reach_a_node_in_small_chunks() {
    let plane = Plane::start().await;
    let started = Instant::now();
    let revision = plane
        .apply(
            (0..10_000)
                .map(|n| backend(&format!("backend-{n}")))
                .collect(),
        )
        .await;
    println!("10,000 documents applied in {:?}", started.elapsed());
    assert_eq!(revision, 1);
    let mut node = plane.connect(hello("n1")).await;
    let set = node.set().await;
    assert_eq!(set.resources.len(), 10_000);
    assert!(set.largest <= 256 * 1024, "{} bytes", set.largest);
    let started = Instant::now();
    assert_eq!(plane.apply(vec![backend("one-more")]).await, 2);
    println!("one more applied in {:?}", started.elapsed());
}
