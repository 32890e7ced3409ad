//! libFuzzer's door to [`fleet_fuzz::sync`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::sync::check(data));
