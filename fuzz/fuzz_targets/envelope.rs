//! libFuzzer's door to [`fleet_fuzz::envelope`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fleet_fuzz::envelope::check(data));
