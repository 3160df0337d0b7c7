//! Transposed 2x2 convolution with stride 2: four linear layers, each writing every other pixel of every
//! other line.
use super::epilogue::Epilogue;
use super::gemm::residual_of;
use super::panels::Panels;
use super::tile::{Grid, product};
use super::view::{Element, Map, View, ViewMut};
use crate::cpu::pool::Pool;
use crate::cpu::simd::Level;
use crate::error::OutOfMemory;

/// The weights of a transposed 2x2 convolution with stride 2, packed for one SIMD level.
pub struct PackedConvTranspose<W: Element = f32> {
    cin: usize,
    cout: usize,
    /// For each output pixel of the two by two, row by row.
    taps: [Panels<W>; 4],
}

impl<W: Element> PackedConvTranspose<W> {
    /// `weight`: `[cin, cout, 2, 2]` as PyTorch's `nn.ConvTranspose2d` stores it.
    ///
    /// # Errors
    /// [`OutOfMemory`] where there is no memory for them.
    pub fn new(
        level: Level,
        weight: &[W],
        cin: usize,
        cout: usize,
        epilogue: Epilogue,
    ) -> Result<Self, OutOfMemory> {
        assert_eq!(weight.len(), cin * cout * 4, "weight elements for [{cin}, {cout}, 2, 2]");
        let tap = |tap| Panels::new(level, cout, cin, &epilogue, |c, k| weight[(k * cout + c) * 4 + tap]);
        Ok(PackedConvTranspose { cin, cout, taps: [tap(0)?, tap(1)?, tap(2)?, tap(3)?] })
    }

    /// Memory that the packed weights take.
    pub fn bytes(&self) -> usize {
        self.taps.iter().map(Panels::bytes).sum()
    }
}

/// `out[N, 2H, 2W, Cout] = epilogue(conv_transpose(x[N, H, W, Cin]))`. The residual has the output's size
/// and may be its memory.
pub fn conv_transpose2x2(
    pool: &Pool,
    x: View,
    input: Map,
    weight: &PackedConvTranspose,
    residual: Option<View>,
    out: ViewMut,
) {
    input.check(x.rows(), "the input");
    Map::new(input.n, input.h * 2, input.w * 2).check(out.rows(), "the output");
    assert_eq!(x.cols(), weight.cin, "input channels");
    assert_eq!(out.cols(), weight.cout, "output channels");
    let residual = residual_of(residual, &out);
    for (tap, panels) in weight.taps.iter().enumerate() {
        let source = Grid {
            x: x.ptr(),
            pitch: x.pitch(),
            k: weight.cin,
            lines: input.n * input.h,
            width: input.w,
            line_step: input.w,
            out_row: tap / 2 * 2 * input.w + tap % 2,
            out_step: 2,
            out_line_step: 4 * input.w,
            tiles_per_line: input.w.div_ceil(panels.level.tile().0),
        };
        // SAFETY: the views are checked; tiles name each output pixel of this tap once.
        unsafe { product(pool, &source, panels, residual, out.ptr(), out.pitch()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::testing::{Rng, epilogue64, everywhere, same_layout};

    #[test]
    fn weights_of_any_element_lie_alike() {
        let mut rng = Rng::seeded();
        for level in Level::available() {
            let (weight, floats) = rng.bytes(5 * 21 * 4);
            let bytes = PackedConvTranspose::new(level, &weight, 5, 21, Epilogue::default()).unwrap();
            let floats = PackedConvTranspose::new(level, &floats, 5, 21, Epilogue::default()).unwrap();
            bytes.taps.iter().zip(&floats.taps).for_each(|(a, b)| same_layout(a, b));
        }
    }

    #[test]
    fn conv_transpose_agrees_with_naive_loops() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..20 {
                let input = Map::new(rng.size(1, 2), rng.size(1, 12), rng.size(1, 30));
                let output = Map::new(input.n, input.h * 2, input.w * 2);
                let (cin, cout) = (rng.size(1, 40), rng.size(1, 40));
                let (x, w, e) =
                    (rng.matrix(input.pixels(), cin), rng.vec(cin * cout * 4), rng.epilogue(cout));
                let residual = rng.coin().then(|| rng.matrix(output.pixels(), cout));
                let before = rng.matrix(output.pixels(), cout);
                let mut out = before.clone();
                let packed = PackedConvTranspose::new(level, &w, cin, cout, e.clone()).unwrap();
                let r = residual.as_ref().map(|r| r.view());
                conv_transpose2x2(pool, x.view(), input, &packed, r, out.view_mut());
                out.check(&before, 2e-5, &format!("{level:?} {input:?} {cin}->{cout}"), |row, c| {
                    let (line, ox) = (row / output.w, row % output.w);
                    let (image, oy) = (line / output.h, line % output.h);
                    let from = (image * input.h + oy / 2) * input.w + ox / 2;
                    let tap = oy % 2 * 2 + ox % 2;
                    let sum = (0..cin).map(|k| x.at(from, k) * w[(k * cout + c) * 4 + tap] as f64).sum();
                    epilogue64(&e, sum, c, residual.as_ref().map(|m| m.at(row, c)))
                });
            }
        });
    }
}
