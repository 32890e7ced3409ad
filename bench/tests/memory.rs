//! What the data plane keeps for each backend of a big table, counted at the allocator.

use std::{alloc::System, sync::Arc};

use fleet_proto::{
    read::{Documents, read_yaml},
    validate::Valid,
};
use mcp_dataplane::{
    call::{Era, Method},
    catalog::{About, Lists, list::List},
    node::Node,
    peer::Peers,
    sealed::KeyRing,
    session::Sessions,
    settings::Settings,
    table::{
        RouteTable,
        compile::{Version, compile},
    },
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BACKENDS: usize = 2_000;
/// Of a backend over HTTP that nobody calls and that has told nothing: some 1,900 bytes.
const EMPTY: usize = 2_000;
/// What two tools of 200 bytes each add: the bytes themselves, where they are, and what is known
/// of their list.
const TOLD: usize = 700;

fn set(timeout: &str) -> Valid {
    let documents: Vec<_> = (0..BACKENDS)
        .map(|n| {
            format!(
                "kind: Backend\nname: server-{n:05}\nhttp: {{ url: \"http://127.0.0.1:1/{n}\" }}\ntimeout: {timeout}\n"
            )
        })
        .collect();
    let mut read = Documents::default();
    read_yaml("test", &documents.join("---\n"), &mut read);
    read.check()
        .unwrap_or_else(|problems| panic!("{problems:?}"))
        .1
}

fn tools() -> Lists {
    let tools = ["echo", "large"].map(|name| {
        let description = "x".repeat(170 - name.len());
        format!(r#"{{"name":"{name}","description":"{description}"}}"#)
    });
    Lists {
        tools: List::of("name", tools),
        ..Lists::default()
    }
}

/// Bytes that are held since.
fn held(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change
        .bytes_allocated
        .saturating_sub(change.bytes_deallocated)
}

#[test]
fn a_backend_of_a_big_table_costs_little_and_a_change_of_all_leaves_nothing_behind() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let node = Arc::new(Node::new(
        Settings::default(),
        None,
        2,
        Sessions::new(KeyRing::of(&[[7; 32]])),
        Peers::none("memory"),
        runtime.handle().clone(),
    ));
    node.discoveries.close();
    let table = |timeout: &str, before: &RouteTable| {
        compile(&node, Version::default(), &set(timeout), before)
    };
    // What is made once is made now.
    drop(table("1s", &RouteTable::default()));
    node.metrics.keep(|_| false);

    let region = Region::new(ALLOCATOR);
    let mut now = table("30s", &RouteTable::default());
    let empty = held(&region) / BACKENDS;
    let told = Region::new(ALLOCATOR);
    for (_, backend) in now.backends() {
        backend.catalog.told(About::default(), tools());
    }
    let told = held(&told) / BACKENDS;
    println!("{empty} bytes a backend, {told} more with two tools");
    assert!(empty < EMPTY, "{empty} bytes a backend");
    assert!(told < TOLD, "{told} bytes a backend for two tools");

    let gateway = now.gateway("/mcp").unwrap().clone();
    let rendering = Region::new(ALLOCATOR);
    let index = gateway.index();
    let listing = |era| index.listing(Method::ToolsList, era, b"1").unwrap();
    let bytes: usize = listing(Era::Modern).iter().map(|part| part.len()).sum();
    let rendered = held(&rendering);
    println!("{bytes} bytes of a list, {rendered} held");
    // Once for both eras, and a word for each backend.
    assert!(rendered < bytes + 32 * BACKENDS, "{rendered} bytes");
    drop((index, gateway));

    let before = held(&region);
    for timeout in ["31s", "32s", "33s"] {
        now = table(timeout, &now);
    }
    let gateway = now.gateway("/mcp").unwrap().clone();
    drop(gateway.index());
    let after = held(&region);
    println!("{before} bytes before, {after} after three changes of all");
    assert!(
        after < before + before / 50,
        "{before} bytes before, {after} after"
    );
}
