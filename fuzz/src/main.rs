//! One libFuzzer binary for every target; `FUZZ_TARGET` says which. `run.sh` builds and runs them in turn.
#![no_main]

use std::sync::OnceLock;

mod targets;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let run = TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET");
        let found = targets::TARGETS.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("no target {name}")).1
    });
    run(data);
});
