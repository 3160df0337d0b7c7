//! The detector by itself: an image in, scored boxes out, without tracks.
//!
//! ```
//! use ultramotion_engine::Device;
//! use ultramotion_models::detector::DetectorPredictor;
//! use ultramotion_models::zoo::Detector;
//! use ultramotion_types::Frame;
//!
//! let model = Detector::open("dfine_n")?.with_input_hw([64, 64])?; // untrained, small
//! let mut predictor = DetectorPredictor::new(&Device::cpu(1), model);
//! let found = predictor.predict(&Frame::grey8(40, 30, vec![128; 30 * 40]).view(), 0.0)?;
//! assert!(found.iter().all(|d| d.box_xyxy[2] <= 40.0 && d.score >= 0.0));
//! assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use thiserror::Error;
use ultramotion_engine::graph::{Graph, GraphError, InputPort, OutputPort};
use ultramotion_engine::ledger::Budget;
use ultramotion_engine::{CompileOptions, Device, DeviceError, InputBlock, InputBytes, OutputBlock, Program};
use ultramotion_types::{FrameError, FrameFormat, FrameView, boxes};

use super::{SelectionOptions, select_detections};
use crate::zoo::Detector;

/// Detections of one image at most: as many as the official code hands on.
const MAX_DETECTIONS: usize = 300;

/// One structure that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Left, top, right, bottom in pixels of the image.
    pub box_xyxy: [f32; 4],
    /// 0 to 1.
    pub score: f32,
    /// Class: see [`Detector::labels`].
    pub class: usize,
}

/// Why nothing was looked for in an image.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum DetectError {
    /// The image is at fault.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A threshold that no score can be compared with.
    #[error("the score threshold is {0}, but it must be 0 to 1")]
    Threshold(f32),
    /// The network cannot be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// A detector on a device.
pub struct DetectorPredictor {
    device: Device,
    detector: Detector,
    /// For the last image's format.
    compiled: Option<Compiled>,
}

struct Compiled {
    format: FrameFormat,
    program: Program,
    input: InputBlock,
    output: OutputBlock,
    frame: InputPort<u8>,
    boxes_cxcywh: OutputPort<f32>,
    scores: OutputPort<f32>,
    classes: OutputPort<i32>,
    count: OutputPort<i32>,
}

impl DetectorPredictor {
    /// Nothing is compiled yet.
    pub fn new(device: &Device, detector: Detector) -> Self {
        DetectorPredictor { device: device.clone(), detector, compiled: None }
    }

    /// The network with its weights.
    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// Structures in an image, best first: of each query its best class, and those that score at least
    /// `score_threshold`, 300 at most.
    ///
    /// Pixels that are on the detector's own GPU are taken from there by one copy within the device.
    pub fn predict<'a, P: Into<InputBytes<'a>> + Copy>(
        &mut self,
        image: &FrameView<'a, P>,
        score_threshold: f32,
    ) -> Result<Vec<Detection>, DetectError> {
        let pixels: InputBytes<'a> = image.pixels.into();
        image.check_bytes(pixels.bytes())?;
        if !(0.0..=1.0).contains(&score_threshold) {
            return Err(DetectError::Threshold(score_threshold));
        }
        let compiled = match self.compiled.take().filter(|kept| kept.format == image.format()) {
            Some(kept) => self.compiled.insert(kept),
            None => self.compiled.insert(Compiled::new(&self.device, &self.detector, image.format())?),
        };
        let Compiled { program, input, output, .. } = compiled;
        program.run_frame_with(input, (compiled.frame, pixels), output, Budget::RESIDENT_FRAME)?;
        let (boxes_cxcywh, _) = compiled.boxes_cxcywh.read(output).as_chunks::<4>();
        let (scores, classes) = (compiled.scores.read(output), compiled.classes.read(output));
        let count = usize::try_from(compiled.count.read(output)[0]).unwrap_or(0);
        let found = boxes_cxcywh.iter().zip(scores).zip(classes).take(count);
        Ok(found
            .take_while(|((_, score), _)| **score >= score_threshold)
            .map(|((&box_cxcywh, &score), &class)| Detection {
                box_xyxy: boxes::xyxy_from_cxcywh(box_cxcywh, image.width, image.height),
                score,
                class: usize::try_from(class).unwrap_or(usize::MAX),
            })
            .collect())
    }
}

impl Compiled {
    fn new(device: &Device, detector: &Detector, format: FrameFormat) -> Result<Self, DetectError> {
        let mut g = Graph::new("detect");
        let FrameFormat { height, width, channels } = format;
        let (frame, frame_port) = g.input_port("frame", [height, width, channels])?;
        let found = detector.detect(&mut g, frame)?;
        let options = SelectionOptions {
            max_detections: MAX_DETECTIONS.min(g.shape(found.pred_logits).rows()),
            score_threshold: 0.0,
            ..SelectionOptions::default()
        };
        let detections = select_detections(&mut g, found.pred_logits, found.pred_boxes, options)?;
        let boxes_cxcywh = g.output_port("boxes_cxcywh", detections.boxes_cxcywh)?;
        let scores = g.output_port("scores", detections.scores)?;
        let classes = g.output_port("classes", detections.classes)?;
        let count = g.output_port("count", detections.count)?;
        let program = Program::compile(g, device, &CompileOptions::default())?;
        let (input, output) = (program.input_block()?, program.output_block()?);
        Ok(Compiled {
            format,
            program,
            input,
            output,
            frame: frame_port,
            boxes_cxcywh,
            scores,
            classes,
            count,
        })
    }
}
