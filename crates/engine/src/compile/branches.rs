//! Which steps may run at once: a device with several streams gives each branch one.

use crate::graph::Tensor;

/// Where a step stands among the branches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// Branch: steps of one branch run in order.
    pub branch: usize,
    /// Steps of other branches that have to be done first, and that no earlier step of this branch waited for.
    pub waits: Vec<usize>,
}

/// Reads and writes of a step, as roots of buffers.
pub(crate) struct Access {
    pub reads: Vec<Tensor>,
    pub writes: Vec<Tensor>,
}

/// A step that reads nothing computed starts a branch (the detector's and the segmenter's view of the frame); every
/// other step goes on with the branch that it needs last, and waits for the others.
pub(crate) fn mark(steps: &[Access], tensors: usize) -> Vec<Place> {
    let mut writer: Vec<Vec<usize>> = vec![Vec::new(); tensors];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); tensors];
    let mut places: Vec<Place> = Vec::with_capacity(steps.len());
    let mut branches = 0;
    // For each branch: the latest step of each other branch that it knows to be done.
    let mut seen: Vec<Vec<Option<usize>>> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let mut needs: Vec<usize> =
            step.reads.iter().flat_map(|t| writer[t.0 as usize].iter().copied()).collect();
        needs.sort_unstable();
        needs.dedup();
        // What is overwritten must have been read: true of states, which a run replaces at its end.
        let overwritten = step.writes.iter().flat_map(|t| readers[t.0 as usize].iter().copied());
        let branch = match needs.last() {
            Some(&last) => places[last].branch,
            None => {
                branches += 1;
                seen.iter_mut().for_each(|s| s.push(None));
                seen.push(vec![None; branches]);
                branches - 1
            }
        };
        needs.extend(overwritten);
        needs.sort_unstable();
        needs.dedup();
        let mut waits = Vec::new();
        // The latest need of each other branch covers the earlier ones.
        for &need in needs.iter().rev() {
            let other = places[need].branch;
            if other != branch && seen[branch][other].is_none_or(|done| done < need) {
                seen[branch][other] = Some(need);
                waits.push(need);
            }
        }
        for t in &step.writes {
            writer[t.0 as usize].push(index);
        }
        for t in &step.reads {
            readers[t.0 as usize].push(index);
        }
        places.push(Place { branch, waits });
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(reads: &[u32], writes: &[u32]) -> Access {
        let tensors = |ids: &[u32]| ids.iter().map(|&i| Tensor(i)).collect();
        Access { reads: tensors(reads), writes: tensors(writes) }
    }

    #[test]
    fn two_views_of_the_frame_are_two_branches_that_join() {
        // 0: frame. 1 → 2 detector, 3 → 4 encoder, 5 decoder reads both, 6 again.
        let steps = [
            step(&[0], &[1]),
            step(&[1], &[2]),
            step(&[0], &[3]),
            step(&[3], &[4]),
            step(&[2, 4], &[5]),
            step(&[2, 5], &[6]),
        ];
        let places = mark(&steps, 7);
        let branches: Vec<usize> = places.iter().map(|p| p.branch).collect();
        assert_eq!(branches, [0, 0, 1, 1, 1, 1]);
        assert_eq!(places[4].waits, [1], "the decoder waits for the detector");
        assert!(places[5].waits.is_empty(), "which is done by then");
    }
}
