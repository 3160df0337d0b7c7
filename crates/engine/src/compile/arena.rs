//! Buffers that are never alive at the same time share memory.

/// A buffer with the first and the last step at which it is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// Bytes.
    pub bytes: usize,
    /// First step that writes it.
    pub first: usize,
    /// Last step that reads it.
    pub last: usize,
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
pub(crate) fn plan(buffers: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].bytes), i));
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut size = 0;
    for index in order {
        let buffer = buffers[index];
        let mut neighbours: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&p| buffers[p].first <= buffer.last && buffer.first <= buffers[p].last)
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

    #[test]
    fn buffers_alive_together_never_overlap_and_others_share() {
        let mut state = 7u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % bound) as usize
        };
        for _ in 0..200 {
            let buffers: Vec<Lifetime> = (0..1 + next(40))
                .map(|_| {
                    let first = next(50);
                    Lifetime { bytes: 1 + next(1000), first, last: first + next(10) }
                })
                .collect();
            let (offsets, size) = plan(&buffers);
            for i in 0..buffers.len() {
                assert!(offsets[i].is_multiple_of(ALIGNMENT) && offsets[i] + buffers[i].bytes <= size);
                for j in 0..i {
                    let (a, b) = (buffers[i], buffers[j]);
                    let together = a.first <= b.last && b.first <= a.last;
                    let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    assert!(!together || apart, "{a:?} at {} and {b:?} at {}", offsets[i], offsets[j]);
                }
            }
        }
        let chain: Vec<Lifetime> = (0..10).map(|i| Lifetime { bytes: 64, first: i, last: i + 1 }).collect();
        assert_eq!(plan(&chain).1, 128, "a chain of equal buffers needs two of them");
    }
}
