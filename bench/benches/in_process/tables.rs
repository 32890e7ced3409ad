//! Tables of 1, 1,000 and 10,000 backends: lookup, compile, lists.

use std::{sync::Arc, sync::atomic::Ordering};

use criterion::Criterion;
use fleet_proto::{
    read::{Documents, read_yaml},
    validate::Valid,
};
use mcp_dataplane::{
    call::{Era, Method},
    catalog::{About, Lists, list::List},
    node::Node,
    route::route,
    table::{
        RouteTable,
        compile::{Version, compile},
    },
};

use crate::{
    measure::alone,
    stack::{call, node, runtime},
};

const SIZES: [usize; 3] = [1, 1_000, 10_000];

pub(crate) fn all(criterion: &mut Criterion) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let node = node(&runtime);
    for size in SIZES {
        let (before, after) = (set(size, "30s"), set(size, "31s"));
        let empty = RouteTable::default();
        let table = table(&node, &before, &empty);
        lookup(criterion, &table, size);
        compiling(criterion, &node, [&before, &after], &table, size);
    }
    lists(criterion, &node);
}

fn lookup(criterion: &mut Criterion, table: &RouteTable, size: usize) {
    let gateway = table.gateway("/mcp").unwrap();
    let call = call(gateway);
    assert!(route(gateway, &call).is_ok());
    alone(
        criterion,
        &format!("lookup/path and name, {size} backends"),
        || {
            let gateway = table.gateway("/mcp").unwrap();
            route(gateway, &call).unwrap_or_else(|e| panic!("{e}"))
        },
    );
}

fn compiling(
    criterion: &mut Criterion,
    node: &Arc<Node>,
    [before, after]: [&Valid; 2],
    table: &RouteTable,
    size: usize,
) {
    let empty = RouteTable::default();
    for (what, set, previous) in [
        ("nothing before", before, &empty),
        ("one changed", after, table),
        ("none changed", before, table),
    ] {
        alone(
            criterion,
            &format!("compile/{size} backends, {what}"),
            || self::table(node, set, previous),
        );
    }
}

fn table(node: &Arc<Node>, set: &Valid, before: &RouteTable) -> RouteTable {
    compile(node, Version::default(), set, before)
}

/// A set in which the first backend has this timeout.
fn set(size: usize, first: &str) -> Valid {
    let documents: Vec<_> = (0..size)
        .map(|n| {
            let timeout = if n == 0 { first } else { "30s" };
            format!("kind: Backend\nname: server-{n:05}\nhttp: {{ url: \"http://127.0.0.1:1/{n}\" }}\ntimeout: {timeout}\n")
        })
        .collect();
    let mut read = Documents::default();
    read_yaml("bench", &documents.join("---\n"), &mut read);
    read.check()
        .unwrap_or_else(|problems| panic!("{problems:?}"))
        .1
}

/// 20,000 tools, of one backend and of ten thousand.
fn lists(criterion: &mut Criterion, node: &Arc<Node>) {
    for (size, tools) in [(1, 20_000), (10_000, 2)] {
        let table = table(node, &set(size, "30s"), &RouteTable::default());
        let gateway = table.gateway("/mcp").unwrap().clone();
        for backend in &gateway.backends {
            backend.catalog.told(About::default(), tools_of(tools));
        }
        let name = format!("list/render 20,000 tools of {size} backends");
        alone(criterion, &name, || {
            // What makes it be rendered anew.
            node.epoch.fetch_add(1, Ordering::Release);
            gateway.index()
        });
        let listing = || {
            let index = gateway.index();
            index.listing(Method::ToolsList, Era::Modern, b"1")
        };
        let name = format!("list/20,000 tools of {size} backends, rendered before");
        alone(criterion, &name, listing);
    }
}

fn tools_of(count: usize) -> Lists {
    let tools = (0..count).map(|n| {
        format!(
            r#"{{"name":"tool_{n:05}","description":"Answers with the text that it was given, as it was given.","inputSchema":{{"type":"object","properties":{{"text":{{"type":"string"}}}}}}}}"#
        )
    });
    Lists {
        tools: List::of("name", tools),
        ..Lists::default()
    }
}
