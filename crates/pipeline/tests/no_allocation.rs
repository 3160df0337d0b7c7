//! A frame in device mode allocates nothing, on the device or on the host: counted over all threads.

#[path = "../../engine/tests/counting_allocator/mod.rs"]
mod counting_allocator;
mod small;

use counting_allocator::allocations;
use small::{grey, options, picture, pipeline};
use ultramotion_pipeline::PipelineOptions;
use ultramotion_types::MatcherMode;

fn main() {
    for (threads, matcher) in
        [(1, MatcherMode::Exact), (2, MatcherMode::Exact), (2, MatcherMode::Greedy), (1, MatcherMode::Host)]
    {
        let mut pipeline = pipeline(threads, PipelineOptions { matcher, ..options() });
        let pictures: Vec<_> = (0..12).map(picture).collect();
        for id in 0..2 {
            pipeline.process(&grey(id, &pictures[id as usize])).expect("a frame");
        }
        let mut objects = 0;
        let count = allocations(|| {
            for id in 2..12 {
                let packet = pipeline.process(&grey(id, &pictures[id as usize])).expect("a frame");
                objects += packet.objects.len();
                assert_eq!(packet.transfers.allocations, 0);
            }
        });
        assert_eq!(count, 0, "{matcher:?} on {threads} threads");
        assert!(objects > 0, "there was something to track and to outline");
    }
}
