//! Seeds, kept inputs and what is near them go through every target, in little memory.

use std::fs;
use std::path::Path;

use peak_alloc::PeakAlloc;
use tidegate_fuzz::{MAX_INPUT, TARGETS, Target, seeds};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");
/// Changed inputs for each target.
const CHANGED: usize = 300;
/// No target needs more: the longest event stream that one builds, a few times over. What a
/// compressed reply decodes to goes by.
const MAX_MEMORY: usize = 4 << 20;

#[test]
fn every_input_of_the_corpus_is_taken() {
    let broken: Vec<_> =
        TARGETS.iter().filter_map(|(name, target)| replay(name, *target).err()).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn kept_inputs_belong_to_a_target() {
    for folder in fs::read_dir(Path::new(FOLDER).join("crashes")).expect("the folder is there") {
        let name = folder.expect("and readable").file_name();
        assert!(TARGETS.iter().any(|(target, _)| name == *target), "{name:?} is no target");
    }
}

/// Seeds, and what is kept in `crashes/` and, of the last fuzzing, in `corpus/`.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs = seeds::of(target);
    for folder in ["crashes", "corpus"] {
        let folder = Path::new(FOLDER).join(folder).join(target);
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("a readable folder").path();
            inputs.push((path.display().to_string(), fs::read(&path).expect("a readable file")));
        }
    }
    inputs
}

fn replay(name: &str, target: Target) -> Result<(), String> {
    let inputs = inputs(name);
    assert!(!inputs.is_empty(), "{name} has no seeds");
    for (input, bytes) in &inputs {
        take(target, bytes).map_err(|wrong| format!("{name}, {input}: {wrong}"))?;
    }
    explore(name, target, &inputs).map_err(|wrong| format!("{name}, changed: {wrong}"))
}

/// Runs inputs with small changes, the same ones each time.
fn explore(name: &str, target: Target, inputs: &[(String, Vec<u8>)]) -> Result<(), String> {
    let mut random = Random(name.bytes().fold(1, |seed, byte| seed << 5 ^ u64::from(byte)));
    for _ in 0..CHANGED {
        let mut input = inputs[random.below(inputs.len())].1.clone();
        let other = &inputs[random.below(inputs.len())].1;
        for _ in 0..1 + random.below(4) {
            random.change(&mut input, other);
        }
        input.truncate(MAX_INPUT);
        take(target, &input)?;
    }
    Ok(())
}

fn take(target: Target, bytes: &[u8]) -> Result<(), String> {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let taken = std::panic::catch_unwind(|| target(bytes));
    let memory = MEMORY.peak_usage().saturating_sub(before);
    match taken {
        Err(_) => Err(format!("broken by \"{}\"", bytes.escape_ascii())),
        Ok(()) if memory > MAX_MEMORY => {
            Err(format!("{memory} bytes for \"{}\"", bytes.escape_ascii()))
        }
        Ok(()) => Ok(()),
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        const TELLING: &[u8] = b"\"\\{}[],:\n\r \0\x1e\x1f\xff0e-[;=%";
        let at = self.below(input.len());
        match self.below(6) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 => input.insert(at, TELLING[self.below(TELLING.len())]),
            2 if !input.is_empty() => input[at] = TELLING[self.below(TELLING.len())],
            3 => drop(input.drain(at..(at + 1 + self.below(16)).min(input.len()))),
            4 => input.truncate(at),
            _ => {
                let from = self.below(other.len());
                let part = &other[from..(from + self.below(64)).min(other.len())];
                input.splice(at..at, part.iter().copied());
            }
        }
    }
}
