//! The segmenter by itself: set an image once, then ask for masks as often as wanted. The image's embedding stays on
//! the device.
//!
//! In: 8-bit images, and prompts in their pixels. Out: [`Masks`] of the image's size. Coordinates, rounding and
//! results are those of the official `SamPredictor`.
//!
//! ```
//! use ultramotion_engine::Device;
//! use ultramotion_models::segmenter::{ObjectPrompt, PredictOptions, PredictorOptions, SamPredictor};
//! use ultramotion_models::zoo::Segmenter;
//!
//! let model = Segmenter::open("mobile_sam")?.with_input_size(64)?; // untrained, small
//! let mut predictor = SamPredictor::new(&Device::cpu(1), model, PredictorOptions::default())?;
//! predictor.set_image(&[128; 40 * 30], 40, 30, 1)?;
//! let prompts = [
//!     ObjectPrompt::from_box([4.0, 4.0, 20.0, 25.0]),
//!     ObjectPrompt::from_point(30.0, 10.0).without(20.0, 10.0),
//! ];
//! let masks = predictor.predict(&prompts, PredictOptions { multimask: true, ..PredictOptions::default() })?;
//! assert_eq!((masks.objects(), masks.per_object(), masks.source_hw()), (2, 3, [30, 40]));
//! let best = masks.best(1);
//! assert_eq!(best.area_px as usize, (0..30 * 40).filter(|i| best.mask.contains(i % 40, i / 40)).count());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod masks;
mod programs;
mod prompt;

use thiserror::Error;
use ultramotion_engine::graph::GraphError;
use ultramotion_engine::tensor::Shape;
use ultramotion_engine::{Device, DeviceError, InputBytes};

use super::{MAX_SOURCE_SIDE, MaskOutput};
use crate::zoo::Segmenter;
use programs::{MaskProducts, Programs, PromptForm};

pub use masks::{Mask, MaskValues, Masks};
pub use prompt::{LabelledPoint, ObjectPrompt};

/// Limits of a predictor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PredictorOptions {
    /// Objects decoded at once; more are decoded in turn. Memory grows with it: about 13 MB each for an input of 1024.
    pub objects_per_run: usize,
    /// Objects in one call.
    pub max_objects: usize,
    /// Points of one object.
    pub max_points: usize,
    /// Memory of one call's results.
    pub max_result_bytes: usize,
}

impl Default for PredictorOptions {
    /// 4 objects at once, 256 a call, 32 points each, 1 GiB of results.
    fn default() -> Self {
        PredictorOptions { objects_per_run: 4, max_objects: 256, max_points: 32, max_result_bytes: 1 << 30 }
    }
}

/// What to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PredictOptions {
    /// Three masks for each object (whole, part, subpart) rather than one: for prompts that are ambiguous, such as a
    /// single point.
    pub multimask: bool,
    /// The logits at the image's size too.
    pub return_logits: bool,
    /// The low-resolution logits too, e.g. for the mask prompt of a next call.
    pub low_res: bool,
}

/// Why there are no masks.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PredictorError {
    /// Options that allow nothing or too much.
    #[error("the option {name} = {value} is not between {least} and {most}")]
    Option {
        /// Field of [`PredictorOptions`].
        name: &'static str,
        /// Value.
        value: usize,
        /// Smallest that is allowed.
        least: usize,
        /// Largest that is allowed.
        most: usize,
    },
    /// An image that cannot be one.
    #[error(
        "cannot use an image of {width} x {height} pixels with {channels} channels in {bytes} bytes: {reason}"
    )]
    Image {
        /// Pixels.
        width: usize,
        /// Pixels.
        height: usize,
        /// Bytes of a pixel.
        channels: usize,
        /// Bytes given.
        bytes: usize,
        /// What is wrong.
        reason: String,
    },
    /// [`SamPredictor::predict`] before [`SamPredictor::set_image`].
    #[error("there is no image to predict on; set one first")]
    NoImage,
    /// More objects than a call may have.
    #[error("{given} objects in one call are more than {limit}; split them or raise the option max_objects")]
    TooManyObjects {
        /// Objects in the call.
        given: usize,
        /// The option.
        limit: usize,
    },
    /// A prompt that cannot be used.
    #[error("object {object}: {reason}")]
    Prompt {
        /// Position in the call.
        object: usize,
        /// What is wrong.
        reason: String,
    },
    /// Results that would take too much memory.
    #[error(
        "the masks of {objects} objects would take {bytes} bytes, more than {limit}; ask for fewer at once, or raise the \
         option max_result_bytes"
    )]
    ResultTooLarge {
        /// Objects in the call.
        objects: usize,
        /// Bytes needed.
        bytes: u128,
        /// The option.
        limit: usize,
    },
    /// The network cannot be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// A segmenter with an image set.
pub struct SamPredictor {
    options: PredictorOptions,
    programs: Programs,
    /// Height and width of the image.
    source_hw: Option<[usize; 2]>,
}

impl SamPredictor {
    /// Builds the network; nothing is decoded yet.
    pub fn new(
        device: &Device,
        segmenter: Segmenter,
        options: PredictorOptions,
    ) -> Result<Self, PredictorError> {
        for (name, value, most) in [
            ("objects_per_run", options.objects_per_run, 64),
            ("max_objects", options.max_objects, 1 << 16),
            ("max_points", options.max_points, 1024),
            ("max_result_bytes", options.max_result_bytes, isize::MAX as usize),
        ] {
            if !(1..=most).contains(&value) {
                return Err(PredictorError::Option { name, value, least: 1, most });
            }
        }
        let programs = Programs::new(device, segmenter, options.objects_per_run)?;
        Ok(SamPredictor { options, programs, source_hw: None })
    }

    /// The network with its weights.
    pub fn segmenter(&self) -> &Segmenter {
        self.programs.segmenter()
    }

    /// Height and width of the image that is set.
    pub fn source_hw(&self) -> Option<[usize; 2]> {
        self.source_hw
    }

    /// Encodes an image: rows from the top, pixels of 1 (grey) or 3 (red, green, blue) bytes. It is resized with its
    /// aspect kept. After an error no image is set.
    pub fn set_image(
        &mut self,
        pixels: &[u8],
        width: usize,
        height: usize,
        channels: usize,
    ) -> Result<(), PredictorError> {
        self.set_image_from(pixels.into(), width, height, channels)
    }

    /// [`SamPredictor::set_image`] with pixels wherever they are: those on the predictor's own GPU are taken from there by one
    /// copy within the device.
    pub fn set_image_from(
        &mut self,
        pixels: InputBytes<'_>,
        width: usize,
        height: usize,
        channels: usize,
    ) -> Result<(), PredictorError> {
        self.source_hw = None;
        let error = |reason: String| {
            let bytes = pixels.bytes();
            Err(PredictorError::Image { width, height, channels, bytes, reason })
        };
        let side = 1..=MAX_SOURCE_SIDE;
        if !side.contains(&width) || !side.contains(&height) {
            return error(format!("each side must have 1 to {MAX_SOURCE_SIDE} pixels"));
        }
        if ![1, 3].contains(&channels) {
            return error("a pixel has 1 channel (grey) or 3 (red, green, blue)".into());
        }
        if pixels.bytes() != width * height * channels {
            return error(format!("it should be {} bytes", width * height * channels));
        }
        self.programs.encode(pixels, [height, width, channels])?;
        self.source_hw = Some([height, width]);
        Ok(())
    }

    /// Forgets the image that is set.
    pub fn reset_image(&mut self) {
        self.source_hw = None;
    }

    /// The embedding of the image that is set, copied from the device, and its shape as the network has it.
    pub fn image_embedding(&mut self) -> Result<(Shape, Vec<f32>), PredictorError> {
        self.source_hw.ok_or(PredictorError::NoImage)?;
        let shape = self.segmenter().network().embedding_shape();
        Ok((shape, self.programs.read_embedding()?.to_vec()))
    }

    /// Masks of objects in the image that is set. Each object gets what it would get alone, in the order given.
    pub fn predict(
        &mut self,
        objects: &[ObjectPrompt<'_>],
        options: PredictOptions,
    ) -> Result<Masks, PredictorError> {
        let source_hw = self.source_hw.ok_or(PredictorError::NoImage)?;
        if objects.len() > self.options.max_objects {
            let limit = self.options.max_objects;
            return Err(PredictorError::TooManyObjects { given: objects.len(), limit });
        }
        let low_res_hw = self.segmenter().network().low_res_hw();
        for (object, prompt) in objects.iter().enumerate() {
            let checked = prompt.check(self.options.max_points, low_res_hw);
            checked.map_err(|reason| PredictorError::Prompt { object, reason })?;
        }
        let output = if options.multimask { MaskOutput::Three } else { MaskOutput::One };
        let mut masks = Masks::new(source_hw, low_res_hw, objects.len(), output.count(), options);
        let (bytes, limit) = (masks.planned_bytes(), self.options.max_result_bytes);
        if bytes > limit as u128 {
            return Err(PredictorError::ResultTooLarge { objects: objects.len(), bytes, limit });
        }
        masks.reserve().map_err(DeviceError::from)?;

        // Objects with prompts of one form are decoded together: padding a shorter list would change its masks.
        let mut forms: Vec<PromptForm> = objects.iter().map(PromptForm::of).collect();
        forms.sort_unstable();
        forms.dedup();
        let finish = MaskProducts { output, logits: options.return_logits, low_res: options.low_res };
        for form in forms {
            let alike: Vec<usize> =
                (0..objects.len()).filter(|&i| PromptForm::of(&objects[i]) == form).collect();
            for batch in alike.chunks(self.options.objects_per_run) {
                let prompts: Vec<&ObjectPrompt<'_>> = batch.iter().map(|&i| &objects[i]).collect();
                masks.store(batch, &self.programs.predict(form, finish, &prompts, source_hw)?);
            }
        }
        Ok(masks)
    }
}
