//! Writes that remove: alone, and together with what takes the place.

use fleet_proto::v1::DeleteRequest;
use tonic::Code;

use super::*;

fn replace(remove: &[(Kind, &str)], resources: Vec<Resource>) -> ApplyRequest {
    let key = |(kind, name): &(Kind, &str)| ResourceKey {
        project: String::new(),
        ..wire_key(*kind, name)
    };
    ApplyRequest {
        remove: remove.iter().map(key).collect(),
        ..apply(resources)
    }
}

fn gateway_at(name: &str, path: &str) -> Resource {
    let mut resource = gateway(name, &["a"]);
    if let Some(resource::Kind::Gateway(gateway)) = &mut resource.kind {
        gateway.path = path.to_owned();
    }
    resource
}

#[tokio::test]
async fn one_revision_removes_a_gateway_and_gives_its_path_to_another() {
    let plane = Plane::start().await;
    plane
        .apply(vec![backend("a"), gateway_at("old", "/mcp")])
        .await;
    let (mut node, _) = plane.connect_synced("n1").await;
    let request = replace(
        &[(Kind::Gateway, "old")],
        vec![gateway_at("new", "/mcp"), backend("a"), backend("b")],
    );
    let dry = ApplyRequest {
        dry_run: true,
        ..request.clone()
    };
    let expected = [
        ("new", Action::Created),
        ("a", Action::Unchanged),
        ("b", Action::Created),
        ("old", Action::Deleted),
    ]
    .map(|(name, action)| (name.to_owned(), action));
    let mut client = plane.client().await;
    for (request, newest) in [(dry, 1), (request, 2)] {
        let done = client.apply(request).await.unwrap().into_inner();
        assert_eq!((done.revision, done.changed), (2, true));
        assert_eq!(actions(&done.changes), expected);
        assert_eq!(plane.list().await.revision, newest);
    }
    // The node never gets a set without a gateway.
    let set = node.set().await;
    assert_eq!((set.revision(), set.names()), (2, vec!["a", "b", "new"]));
    let newest = &plane.revisions().await.revisions[0];
    assert_eq!((newest.created, newest.deleted), (2, 1));
}

#[tokio::test]
async fn what_is_absent_already_is_unchanged_and_a_second_time_changes_nothing() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a"), backend("b")]).await;
    let remove = [
        (Kind::Backend, "a"),
        (Kind::Backend, "never"),
        (Kind::Backend, "a"),
    ];
    let mut client = plane.client().await;
    let request = replace(&remove, Vec::new());
    let first = client.apply(request.clone()).await.unwrap().into_inner();
    let told = |a, b| [("a".to_owned(), a), ("never".to_owned(), b)];
    assert_eq!(
        actions(&first.changes),
        told(Action::Deleted, Action::Unchanged)
    );
    let again = client.apply(request).await.unwrap().into_inner();
    assert_eq!(
        actions(&again.changes),
        told(Action::Unchanged, Action::Unchanged)
    );
    assert_eq!((again.revision, again.changed), (2, false));
    assert_eq!(plane.list().await.resources, [normal("b")]);
}

#[tokio::test]
async fn a_key_both_written_and_removed_is_a_problem_beside_all_others() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let request = replace(
        &[(Kind::Backend, "a"), (Kind::Gateway, "g")],
        vec![backend("a"), backend_at("bad", "ftp://x")],
    );
    let status = plane.client().await.apply(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let found = problems(&status);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].path, "http.url");
    assert_eq!(found[1].key, Some(wire_key(Kind::Backend, "a")));
    assert!(found[1].message.contains("removed"), "{found:?}");
    assert_eq!(plane.list().await.revision, 1);
}

#[tokio::test]
async fn what_others_refer_to_stays_and_nothing_is_written() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a"), gateway("g", &["a"])]).await;
    let request = replace(&[(Kind::Backend, "a")], vec![backend("b")]);
    let status = plane.client().await.apply(request).await.unwrap_err();
    assert_eq!(problems(&status)[0].key, Some(wire_key(Kind::Gateway, "g")));
    let list = plane.list().await;
    assert_eq!((list.resources.len(), list.revision), (2, 1));
}

#[tokio::test]
async fn a_key_of_no_kind_or_no_name_is_refused() {
    let plane = Plane::start().await;
    let mut client = plane.client().await;
    for (kind, name, told) in [("Bakend", "a", "Bakend"), ("Backend", "", "no name")] {
        let key = ResourceKey {
            kind: kind.to_owned(),
            name: name.to_owned(),
            ..Default::default()
        };
        let remove = ApplyRequest {
            remove: vec![key.clone()],
            ..Default::default()
        };
        let delete = DeleteRequest {
            keys: vec![key],
            ..Default::default()
        };
        let refused = [
            client.apply(remove).await.unwrap_err(),
            client.delete(delete).await.unwrap_err(),
        ];
        for status in refused {
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains(told), "{status}");
        }
    }
}

fn normal(name: &str) -> Resource {
    fleet_proto::validate::normalize(backend(name))
}
