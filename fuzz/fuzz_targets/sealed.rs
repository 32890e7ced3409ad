//! libFuzzer's door to [`fleet_fuzz::sealed`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::sealed::check(data));
