//! What a prediction returns.

use ultramotion_engine::OutOfMemory;
use ultramotion_types::MaskView;

use super::PredictOptions;
use super::programs::BatchMasks;

/// Masks of some objects, one or three each.
#[derive(Debug, Clone, PartialEq)]
pub struct Masks {
    source_hw: [usize; 2],
    low_res_hw: [usize; 2],
    objects: usize,
    per_object: usize,
    options: PredictOptions,
    bits: Vec<u8>,
    area_px: Vec<i32>,
    box_xyxy: Vec<i32>,
    iou: Vec<f32>,
    logits: Vec<f32>,
    low_res: Vec<f32>,
}

/// One mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mask<'a> {
    /// Its pixels, at the image's size.
    pub mask: MaskView<'a>,
    /// Pixels inside.
    pub area_px: u32,
    /// x1, y1, x2, y2 of the smallest box around the mask, x2 and y2 exclusive; zeros for an empty mask.
    pub box_xyxy: [u32; 4],
    /// The network's estimate of the mask's IoU with the truth.
    pub iou: f32,
    /// Height x width logits, positive inside, if asked for.
    pub logits: Option<&'a [f32]>,
    /// Low-resolution logits, if asked for: height and width as
    /// [`SegmenterNetwork::low_res_hw`](crate::segmenter::SegmenterNetwork::low_res_hw), padding included.
    pub low_res: Option<&'a [f32]>,
}

/// The values of some masks, one after another.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskValues {
    /// `[…, height, ceil(width / 8)]`, as [`MaskView`] has them.
    pub bits: Vec<u8>,
    /// `[…]`: the network's estimate of each mask's IoU with the truth.
    pub iou: Vec<f32>,
    /// `[…, height, width]`, positive inside; empty unless asked for.
    pub logits: Vec<f32>,
    /// `[…, h, w]` at low resolution; empty unless asked for.
    pub low_res: Vec<f32>,
}

impl Masks {
    pub(super) fn new(
        source_hw: [usize; 2],
        low_res_hw: [usize; 2],
        objects: usize,
        per_object: usize,
        options: PredictOptions,
    ) -> Self {
        Masks {
            source_hw,
            low_res_hw,
            objects,
            per_object,
            options,
            bits: Vec::new(),
            area_px: Vec::new(),
            box_xyxy: Vec::new(),
            iou: Vec::new(),
            logits: Vec::new(),
            low_res: Vec::new(),
        }
    }

    /// Elements for each mask: bits in bytes, logits, low-resolution logits.
    fn sizes(&self) -> [usize; 3] {
        let [h, w] = self.source_hw;
        let wanted = |yes: bool, size: usize| if yes { size } else { 0 };
        [
            h * w.div_ceil(8),
            wanted(self.options.return_logits, h * w),
            wanted(self.options.low_res, self.low_res_hw[0] * self.low_res_hw[1]),
        ]
    }

    pub(super) fn planned_bytes(&self) -> u128 {
        let [bits, logits, low_res] = self.sizes().map(|n| n as u128);
        (self.objects * self.per_object) as u128 * (bits + 4 * (logits + low_res) + 24)
    }

    /// Makes room for all results, or says that there is none.
    pub(super) fn reserve(&mut self) -> Result<(), OutOfMemory> {
        let masks = self.objects * self.per_object;
        let [bits, logits, low_res] = self.sizes();
        fill(&mut self.bits, masks.saturating_mul(bits), 0)?;
        fill(&mut self.logits, masks.saturating_mul(logits), 0.0)?;
        fill(&mut self.low_res, masks.saturating_mul(low_res), 0.0)?;
        fill(&mut self.area_px, masks, 0)?;
        fill(&mut self.box_xyxy, masks.saturating_mul(4), 0)?;
        fill(&mut self.iou, masks, 0.0)
    }

    /// Puts the results of a batch where its objects are.
    pub(super) fn store(&mut self, objects: &[usize], finished: &BatchMasks<'_>) {
        let [bits, logits, low_res] = self.sizes();
        let n = self.per_object;
        for (row, &object) in objects.iter().enumerate() {
            place(&mut self.iou, Some(finished.iou), row, object, n);
            place(&mut self.bits, Some(finished.bits), row, object, n * bits);
            place(&mut self.area_px, Some(finished.area_px), row, object, n);
            place(&mut self.box_xyxy, Some(finished.box_xyxy), row, object, n * 4);
            place(&mut self.logits, finished.logits, row, object, n * logits);
            place(&mut self.low_res, finished.low_res, row, object, n * low_res);
        }
    }

    /// Height and width of every mask.
    pub fn source_hw(&self) -> [usize; 2] {
        self.source_hw
    }
    /// Height and width of the low-resolution logits.
    pub fn low_res_hw(&self) -> [usize; 2] {
        self.low_res_hw
    }
    /// Number of objects.
    pub fn objects(&self) -> usize {
        self.objects
    }
    /// Masks of each object: 1 or 3.
    pub fn per_object(&self) -> usize {
        self.per_object
    }

    /// A mask of an object.
    ///
    /// # Panics
    /// If there is no such object or mask.
    pub fn get(&self, object: usize, mask: usize) -> Mask<'_> {
        assert!(
            object < self.objects && mask < self.per_object,
            "mask {mask} of object {object} of {} with {} each",
            self.objects,
            self.per_object
        );
        let at = object * self.per_object + mask;
        let [bits, logits, low_res] = self.sizes();
        let [height, width] = self.source_hw;
        Mask {
            mask: MaskView::new(width, height, &self.bits[at * bits..][..bits])
                .expect("sizes() gives a mask of the source's size"),
            area_px: self.area_px[at] as u32,
            box_xyxy: std::array::from_fn(|i| self.box_xyxy[at * 4 + i] as u32),
            iou: self.iou[at],
            logits: self.options.return_logits.then(|| &self.logits[at * logits..][..logits]),
            low_res: self.options.low_res.then(|| &self.low_res[at * low_res..][..low_res]),
        }
    }

    /// The values of all masks, without a copy. The leading dimensions of each are [`Masks::objects`] and
    /// [`Masks::per_object`].
    pub fn into_values(self) -> MaskValues {
        let Masks { bits, iou, logits, low_res, .. } = self;
        MaskValues { bits, iou, logits, low_res }
    }

    /// The mask of an object with the highest estimated IoU. Panics as [`Masks::get`].
    pub fn best(&self, object: usize) -> Mask<'_> {
        let first = self.get(object, 0);
        (1..self.per_object)
            .map(|mask| self.get(object, mask))
            .fold(first, |best, next| if next.iou > best.iou { next } else { best })
    }
}

/// `len` equal elements, in memory that is asked for first.
fn fill<T: Copy>(elements: &mut Vec<T>, len: usize, value: T) -> Result<(), OutOfMemory> {
    let error = |_| OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) };
    elements.try_reserve_exact(len).map_err(error)?;
    elements.resize(len, value);
    Ok(())
}

/// Copies entry `row` of a batch's values to entry `object` of all values.
fn place<T: Copy>(all: &mut [T], batch: Option<&[T]>, row: usize, object: usize, len: usize) {
    if let Some(batch) = batch {
        all[object * len..][..len].copy_from_slice(&batch[row * len..][..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_no_memory_holds_are_an_error() {
        let options = PredictOptions { return_logits: true, ..PredictOptions::default() };
        let error = Masks::new([1 << 30, 1 << 30], [256, 256], 1 << 16, 3, options).reserve();
        assert_eq!(error, Err(OutOfMemory { bytes: usize::MAX }));
    }
}
