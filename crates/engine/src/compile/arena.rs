//! Buffers that are never alive at the same time share memory.

use super::branches::Place;

/// A buffer with the steps that write or read it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// Bytes.
    pub bytes: usize,
    /// Steps; at least one.
    pub steps: Vec<usize>,
}

/// Which steps are over when others begin.
pub(crate) enum Order {
    /// Each before the next.
    Sequential,
    /// For each step: the steps that are done when it begins, as bits.
    Partial(Vec<Vec<u64>>),
}

impl Order {
    /// The order of steps in branches that run at once: a step comes after those before it in its branch, those it waits
    /// for, and all that those come after.
    pub(crate) fn concurrent(places: &[Place]) -> Order {
        let words = places.len().div_ceil(64);
        let mut before: Vec<Vec<u64>> = Vec::with_capacity(places.len());
        let mut last_of_branch = vec![None; places.len()];
        for (index, place) in places.iter().enumerate() {
            let mut done = vec![0u64; words];
            for &earlier in place.waits.iter().chain(&last_of_branch[place.branch]) {
                done.iter_mut().zip(&before[earlier]).for_each(|(a, b): (&mut u64, &u64)| *a |= b);
                done[earlier / 64] |= 1 << (earlier % 64);
            }
            before.push(done);
            last_of_branch[place.branch] = Some(index);
        }
        Order::Partial(before)
    }

    /// Whether everything that touches `a` is done when the first step that touches `b` begins.
    fn ends_before(&self, a: &Lifetime, b: &Lifetime) -> bool {
        match self {
            Order::Sequential => a.steps.last() < b.steps.first(),
            Order::Partial(before) => b.steps.iter().all(|&step| {
                let done = &before[step];
                a.steps.iter().all(|&s| done[s / 64] >> (s % 64) & 1 == 1)
            }),
        }
    }

    fn alive_together(&self, a: &Lifetime, b: &Lifetime) -> bool {
        !self.ends_before(a, b) && !self.ends_before(b, a)
    }
}

/// Every buffer starts at a multiple of this many bytes: a cache line, and the widest vector.
pub(crate) const ALIGNMENT: usize = 64;

/// Buffers of this many bytes or more start at different distances from a page: when input and output have equal low
/// address bits, a processor takes a load for one that needs a store before it.
const LARGE: usize = 64 * 1024;
const PAGE: usize = 4096;
const COLOURS: usize = 32;

/// Offset of each buffer, and the size of the arena. Largest buffers first, each at the lowest offset that is free
/// throughout its life (Pisarchyk & Lee 2020, "greedy by size").
pub(crate) fn plan(buffers: &[Lifetime], order: &Order) -> (Vec<usize>, usize) {
    let mut by_size: Vec<usize> = (0..buffers.len()).collect();
    by_size.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].bytes), i));
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut size = 0;
    for index in by_size {
        let buffer = &buffers[index];
        let mut neighbours: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&p| order.alive_together(&buffers[p], buffer))
            .map(|&p| (offsets[p], offsets[p] + buffers[p].bytes))
            .collect();
        neighbours.sort_unstable();
        let colour = if buffer.bytes >= LARGE { index % COLOURS * ALIGNMENT } else { 0 };
        let next_free = |at: usize| (at.saturating_sub(colour)).next_multiple_of(PAGE) + colour;
        let place =
            |at: usize| if buffer.bytes >= LARGE { next_free(at) } else { at.next_multiple_of(ALIGNMENT) };
        let mut offset = place(0);
        for (start, end) in neighbours {
            if offset + buffer.bytes <= start {
                break;
            }
            offset = offset.max(place(end));
        }
        offsets[index] = offset;
        size = size.max(offset + buffer.bytes);
        placed.push(index);
    }
    (offsets, size.next_multiple_of(ALIGNMENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(state: &mut u64, bound: u64) -> usize {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((*state >> 33) % bound) as usize
    }

    fn check(buffers: &[Lifetime], order: &Order) {
        let (offsets, size) = plan(buffers, order);
        for i in 0..buffers.len() {
            assert!(offsets[i].is_multiple_of(ALIGNMENT) && offsets[i] + buffers[i].bytes <= size);
            for j in 0..i {
                let (a, b) = (&buffers[i], &buffers[j]);
                let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                assert!(
                    !order.alive_together(a, b) || apart,
                    "{a:?} at {} and {b:?} at {}",
                    offsets[i],
                    offsets[j]
                );
            }
        }
    }

    #[test]
    fn buffers_alive_together_never_overlap_and_others_share() {
        let mut state = 7u64;
        for _ in 0..200 {
            let buffers: Vec<Lifetime> = (0..1 + random(&mut state, 40))
                .map(|_| {
                    let first = random(&mut state, 50);
                    let last = first + random(&mut state, 10);
                    Lifetime { bytes: 1 + random(&mut state, 1000), steps: vec![first, last] }
                })
                .collect();
            check(&buffers, &Order::Sequential);
        }
        let chain: Vec<Lifetime> = (0..10).map(|i| Lifetime { bytes: 64, steps: vec![i, i + 1] }).collect();
        assert_eq!(plan(&chain, &Order::Sequential).1, 128, "a chain of equal buffers needs two of them");
    }

    #[test]
    fn branches_that_run_at_once_share_nothing_until_they_join() {
        let place = |branch, waits: &[usize]| Place { branch, waits: waits.to_vec() };
        // Two branches of three steps, turn by turn; the last step joins them.
        let places = [
            place(0, &[]),
            place(1, &[]),
            place(0, &[]),
            place(1, &[]),
            place(0, &[]),
            place(1, &[]),
            place(0, &[5]),
        ];
        let order = Order::concurrent(&places);
        let buffer = |steps: &[usize]| Lifetime { bytes: 64, steps: steps.to_vec() };
        let apart = [buffer(&[0, 2]), buffer(&[3, 5])];
        check(&apart, &order);
        assert_eq!(plan(&apart, &order).1, 128, "step 3 may run while step 2 does");
        assert_eq!(plan(&[buffer(&[1, 3]), buffer(&[6])], &order).1, 64, "step 6 has waited for step 3");
        let mut state = 11u64;
        let random_buffers: Vec<Lifetime> = (0..60)
            .map(|_| {
                let mut steps: Vec<usize> =
                    (0..1 + random(&mut state, 3)).map(|_| random(&mut state, 7)).collect();
                steps.sort_unstable();
                buffer(&steps)
            })
            .collect();
        check(&random_buffers, &order);
    }
}
