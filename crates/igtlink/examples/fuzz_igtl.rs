//! Fuzzes codec and stream decoder for as long as asked.
//!
//! ```text
//! cargo run --release -p ultramotion-igtlink --example fuzz_igtl -- \
//!     [--iterations N] [--seed S] [--corpus FILE]
//! ```
//!
//! Ends with 1, and prints the input, after a panic, after ten seconds on one input, and when an
//! input makes more memory be used than its length allows. With `--corpus` it starts from the inputs
//! in the file as well, and writes the file anew with one input for each outcome.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../tests/support/counting_alloc.rs"]
mod counting_alloc;
#[path = "../tests/support/fuzz.rs"]
mod fuzz;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: counting_alloc::CountingAlloc = counting_alloc::CountingAlloc;

static STEPS: AtomicU64 = AtomicU64::new(0);

struct Options {
    iterations: u64,
    seed: u64,
    corpus: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let mut options = Options { iterations: 1_000_000, seed: 1, corpus: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or(format!("{argument} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{argument} {value}: not a whole number"));
        match argument.as_str() {
            "--iterations" => options.iterations = number()?,
            "--seed" => options.seed = number()?,
            "--corpus" => options.corpus = Some(value.into()),
            _ => {
                return Err(format!(
                    "unknown option {argument}; there are --iterations, --seed and --corpus"
                ));
            }
        }
    }
    Ok(options)
}

/// Ends the program if an input takes longer than any input can.
fn watch() {
    let mut last = u64::MAX;
    loop {
        std::thread::sleep(Duration::from_secs(10));
        let now = STEPS.load(Ordering::Relaxed);
        if now == last {
            eprintln!("input number {now} takes longer than 10 s");
            std::process::exit(1);
        }
        last = now;
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Options { iterations, seed, corpus } = options()?;
    let mut messages = fuzz::first_messages();
    if let Some(path) = corpus.as_ref().filter(|path| path.exists()) {
        messages.extend(fuzz::read_corpus(&std::fs::read_to_string(path)?));
    }
    std::thread::spawn(watch);
    let start = Instant::now();
    let mut fuzzer = fuzz::Fuzzer::new(seed, messages);
    for n in 0..iterations {
        let step = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fuzzer.step()));
        if step.is_err() {
            let hex: String = fuzzer.input().iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("seed {seed}, input number {n}: {hex}");
            std::process::exit(1);
        }
        STEPS.store(n + 1, Ordering::Relaxed);
        if (n + 1) % 1_000_000 == 0 {
            println!(
                "{} inputs, {} outcomes, {:.0} s",
                n + 1,
                fuzzer.outcomes(),
                start.elapsed().as_secs_f64()
            );
        }
    }
    println!(
        "{iterations} inputs, seed {seed}: no panic, no hang; {} messages accepted, {} outcomes, at most {:.0} % of \
         the memory allowed, {:.1} s",
        fuzzer.accepted,
        fuzzer.outcomes(),
        100.0 * fuzzer.worst_memory,
        start.elapsed().as_secs_f64()
    );
    if let Some(path) = corpus {
        fuzzer.write_corpus(&path)?;
    }
    Ok(())
}
