//! What a new table takes over from the one before.

use fleet_proto::read::{Documents, read_yaml};

use super::*;
use crate::{
    catalog::{About, Lists, State},
    sealed::KeyRing,
    session::Sessions,
    settings::Settings,
};

/// A node that asks nobody.
fn node() -> Arc<Node> {
    let node = Arc::new(Node::new(
        Settings::default(),
        None,
        1,
        Sessions::new(KeyRing::of(&[[7; 32]])),
        crate::peer::Peers::none("test"),
        Handle::current(),
    ));
    node.discoveries.close();
    node
}

fn table(node: &Arc<Node>, fields: &str, before: &RouteTable) -> RouteTable {
    let text = format!("kind: Backend\nname: a\n{fields}\n");
    let mut read = Documents::default();
    read_yaml("test", &text, &mut read);
    let (_, set) = read.check().unwrap();
    compile(node, Version::default(), &set, before)
}

fn only(table: &RouteTable) -> &Arc<Backend> {
    table.backends().next().unwrap().1
}

const HTTP: &str = "http: { url: 'http://127.0.0.1:1/mcp' }";

#[tokio::test]
async fn a_backend_whose_limits_alone_change_keeps_its_transport_and_its_catalogue() {
    let node = node();
    let before = table(&node, HTTP, &RouteTable::default());
    only(&before)
        .catalog
        .told(About::default(), Lists::default());
    let epoch = node.epoch.load(std::sync::atomic::Ordering::Relaxed);
    let after = table(&node, &format!("{HTTP}\ntimeout: 7s"), &before);
    let (old, new) = (only(&before), only(&after));
    assert!(!Arc::ptr_eq(old, new));
    assert_eq!(new.timeout, Duration::from_secs(7));
    assert_eq!((new.serial, new.fingerprint), (old.serial, old.fingerprint));
    assert!(Arc::ptr_eq(&old.metrics, &new.metrics));
    let (known, same) = (old.catalog.snapshot(), new.catalog.snapshot());
    assert!(Arc::ptr_eq(&known, &same));
    assert_eq!(same.state, State::Fresh);
    assert_eq!(node.epoch.load(std::sync::atomic::Ordering::Relaxed), epoch);
    // And back: nothing of that counts as another transport.
    let back = table(&node, HTTP, &after);
    assert_eq!(only(&back).serial, old.serial);
}

#[tokio::test]
async fn a_backend_that_is_reached_in_another_way_is_asked_anew() {
    let node = node();
    let before = table(&node, HTTP, &RouteTable::default());
    only(&before)
        .catalog
        .told(About::default(), Lists::default());
    let header = "http: { url: 'http://127.0.0.1:1/mcp', headers: { x-a: '1' } }";
    let after = table(&node, header, &before);
    let (old, new) = (only(&before), only(&after));
    assert_ne!(new.serial, old.serial);
    let now = new.catalog.snapshot();
    assert_eq!(now.state, State::Stale);
    assert!(Arc::ptr_eq(&now.lists, &old.catalog.snapshot().lists));
}

#[tokio::test]
async fn a_backend_that_does_not_change_goes_over_as_it_is() {
    let node = node();
    let before = table(&node, HTTP, &RouteTable::default());
    let after = table(&node, &format!("{HTTP}\nlabels: {{ team: x }}"), &before);
    assert!(Arc::ptr_eq(only(&before), only(&after)));
}
