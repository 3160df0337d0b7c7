//! Packed weights: the layout that the matrix product reads.
use super::aligned::AlignedVec;
use super::epilogue::{Epilogue, Post};
use super::view::Element;
use crate::cpu::simd::Level;
use crate::error::OutOfMemory;

/// A weight matrix `[K, N]` of any element, cut into panels of `NV` vectors of columns, each stored K-major, with the epilogue
/// that goes with it. The sums that it makes are f32: so are a panel's columns counted, and so is the bias.
pub(crate) struct Panels<W: Element = f32> {
    pub level: Level,
    pub n: usize,
    pub k: usize,
    /// Columns of a whole panel.
    pub width: usize,
    data: AlignedVec<W>,
    /// Zero padded to whole panels.
    pub bias: AlignedVec,
    pub post: Post,
}

impl<W: Element> Panels<W> {
    /// `weight(column, k)` gives the element.
    pub fn new(
        level: Level,
        n: usize,
        k: usize,
        epilogue: &Epilogue,
        weight: impl Fn(usize, usize) -> W,
    ) -> Result<Self, OutOfMemory> {
        let width = level.tile().1 * level.lanes();
        let mut panels = Panels {
            level,
            n,
            k,
            width,
            data: AlignedVec::try_zeros(n.next_multiple_of(level.lanes()) * k)?,
            bias: epilogue.padded_bias(n, width)?,
            post: epilogue.post(),
        };
        for p in 0..panels.count() {
            let (at, wide) = (p * width * k, panels.stored_width(p));
            for row in 0..k {
                for c in 0..wide.min(n - p * width) {
                    panels.data[at + row * wide + c] = weight(p * width + c, row);
                }
            }
        }
        Ok(panels)
    }

    pub fn count(&self) -> usize {
        self.n.div_ceil(self.width)
    }
    /// A panel: `k` rows of its vectors.
    pub fn panel(&self, panel: usize) -> &[W] {
        &self.data[panel * self.width * self.k..][..self.stored_width(panel) * self.k]
    }
    /// The last panel stores no more vectors than it needs.
    fn stored_width(&self, panel: usize) -> usize {
        let left = self.n - panel * self.width;
        left.next_multiple_of(self.level.lanes()).min(self.width)
    }
    pub fn bytes(&self) -> usize {
        self.data.bytes() + self.bias.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::testing::Rng;

    fn every_element_has_its_place<W: Element + PartialEq>(cast: impl Fn(usize) -> W) {
        let mut rng = Rng::seeded();
        for level in Level::available() {
            for _ in 0..20 {
                let (n, k) = (rng.size(1, 70), rng.size(1, 40));
                let panels =
                    Panels::new(level, n, k, &Epilogue::default(), |c, i| cast(c * k + i + 1)).unwrap();
                let mut seen = vec![false; n * k];
                for p in 0..panels.count() {
                    let data = panels.panel(p);
                    let wide = data.len() / k;
                    assert!(wide.is_multiple_of(level.lanes()) && wide <= panels.width);
                    for (at, &value) in data.iter().enumerate() {
                        let (row, column) = (at / wide, p * panels.width + at % wide);
                        if column < n {
                            assert!(
                                value == cast(column * k + row + 1),
                                "{level:?} {n}x{k}: {column}, {row}"
                            );
                            seen[column * k + row] = true;
                        } else {
                            assert!(value == W::zeroed(), "{level:?} {n}x{k}: padding at {column}, {row}");
                        }
                    }
                }
                assert!(seen.iter().all(|&s| s), "{level:?} {n}x{k}");
                let columns = n.next_multiple_of(level.lanes()) * k * size_of::<W>();
                assert_eq!(panels.bytes(), columns + 4 * n.next_multiple_of(panels.width));
            }
        }
    }

    #[test]
    fn every_element_of_every_type_has_its_place() {
        every_element_has_its_place(|i| i as f32);
        every_element_has_its_place(|i| i as u16);
        every_element_has_its_place(|i| i as i8);
    }
}
