//! Parts of the data plane by themselves: time (criterion) and allocations (counted) of each.
//!
//! `cargo bench -p fleet-bench`, and `-- FILTER` for some of them.

mod measure;
mod messages;
mod stack;
mod tables;

use std::alloc::System;

use criterion::Criterion;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    messages::all(&mut criterion);
    stack::all(&mut criterion);
    tables::all(&mut criterion);
    criterion.final_summary();
}
