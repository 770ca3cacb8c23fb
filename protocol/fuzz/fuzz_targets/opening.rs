#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pooler_protocol_fuzz::opening::run(data));
