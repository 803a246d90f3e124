#![no_main]
#[path = "../counted.rs"]
mod counted;
#[path = "../../store-redb/tests/disk/mod.rs"]
mod disk;
#[path = "../../store-redb/tests/images/scripts.rs"]
#[allow(dead_code)]
mod scripts;
#[path = "../../store-redb/tests/recovery/target.rs"]
mod target;
libfuzzer_sys::fuzz_target!(
    init: {
        target::say_nothing_of_redbs_panics();
    },
    |data: &[u8]| target::BOUND.explore(target::recovery, data)
);
