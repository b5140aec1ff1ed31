//! Fuzzes the target that the environment names.
#![no_main]

use std::env;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("TIDEGATE_FUZZ_TARGET").expect("TIDEGATE_FUZZ_TARGET names a target");
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.expect("TIDEGATE_FUZZ_TARGET is one of TARGETS").1
});

fuzz_target!(|data: &[u8]| TARGET(data));
