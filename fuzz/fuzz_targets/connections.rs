#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| transport_http::testing::connections(data));
