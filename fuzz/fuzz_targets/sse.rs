//! libFuzzer's door to [`fleet_fuzz::sse`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::sse::check(data));
