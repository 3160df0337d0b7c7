//! A short run of the fuzzer, on the inputs that longer runs have kept. The long one is
//! `examples/fuzz_igtl.rs`.

#[path = "support/counting_alloc.rs"]
mod counting_alloc;
#[path = "support/fuzz.rs"]
mod fuzz;

#[global_allocator]
static ALLOCATOR: counting_alloc::CountingAlloc = counting_alloc::CountingAlloc;

#[test]
fn damaged_inputs_do_no_harm() {
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_101);
    println!("seed {seed}; FUZZ_SEED sets another");
    let mut messages = fuzz::first_messages();
    messages.extend(fuzz::read_corpus(include_str!("fuzz_corpus.tsv")));
    let mut fuzzer = fuzz::Fuzzer::new(seed, messages);
    let known = fuzzer.outcomes();
    assert!(known > 150, "the kept inputs lead to {known} outcomes only");
    for _ in 0..100_000 {
        fuzzer.step();
    }
    assert!(fuzzer.accepted > 10_000, "{} messages were accepted: the damage is too great", fuzzer.accepted);
}
