//! What must hold for any bytes, one module for each place where bytes of others are read.
//!
//! Each `check` panics where a law is broken. `make fuzz` looks for such bytes with libFuzzer (`fuzz_targets/`); what
//! it has found before is in `corpus/` and checked by `cargo test`.

pub mod envelope;
pub mod sealed;
pub mod sse;
pub mod sync;
pub mod yaml;

/// A target: panics on bytes that break a law of its place.
pub type Check = fn(&[u8]);

/// The targets, by the names of their folders in `corpus/`.
pub const TARGETS: [(&str, Check); 5] = [
    ("envelope", envelope::check),
    ("sse", sse::check),
    ("sealed", sealed::check),
    ("yaml", yaml::check),
    ("sync", sync::check),
];

/// Takes a byte from the front; 0 where there is none left.
fn byte(data: &mut &[u8]) -> u8 {
    let Some((first, rest)) = data.split_first() else {
        return 0;
    };
    *data = rest;
    *first
}
