//! Time and allocations of the same closure.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::Criterion;
use stats_alloc::Region;

use crate::ALLOCATOR;

/// Inputs that are made at a time, aside.
const BATCH: u64 = 64;

/// Measures what `run` does with what `make` gives; only `run` counts, and the drop of its result.
pub(crate) fn with<I, O>(
    criterion: &mut Criterion,
    name: &str,
    mut make: impl FnMut() -> I,
    mut run: impl FnMut(I) -> O,
) {
    let mut counted = None;
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|calls| {
            let mut took = Duration::ZERO;
            let mut left = calls;
            while left > 0 {
                let inputs: Vec<_> = (0..left.min(BATCH)).map(|_| make()).collect();
                left -= inputs.len() as u64;
                let begun = Instant::now();
                for input in inputs {
                    drop(black_box(run(black_box(input))));
                }
                took += begun.elapsed();
            }
            took
        });
        let input = make();
        let region = Region::new(ALLOCATOR);
        drop(black_box(run(black_box(input))));
        counted = Some(region.change());
    });
    // `None`: the filter has left it out.
    if let Some(counted) = counted {
        println!(
            "{:24}allocs: {} allocations, {} bytes",
            "",
            counted.allocations + counted.reallocations,
            counted.bytes_allocated
        );
    }
}

/// Measures a closure without input.
pub(crate) fn alone<O>(criterion: &mut Criterion, name: &str, mut run: impl FnMut() -> O) {
    with(criterion, name, || (), |()| run());
}
