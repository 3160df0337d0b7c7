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
use ultramotion_engine::{
    ByFormat, CompileOptions, Device, DeviceError, InputBlock, InputBytes, OutputBlock, Program,
};
use ultramotion_types::{FrameError, FrameFormat, FrameView, boxes};

use super::{DetectorTensors, SelectionOptions, select_detections};
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

/// Detections of one selection, best first, as the device gives them.
#[derive(Debug, Clone, Copy)]
pub struct Selected<'a> {
    /// (cx, cy, w, h) of the part inside the image, as shares of it.
    pub boxes_cxcywh: &'a [[f32; 4]],
    /// 0 to 1.
    pub scores: &'a [f32],
    /// Classes: see [`Detector::labels`]; none is below 0.
    pub classes: &'a [i32],
}

/// A detector on a device, compiled for each format of image.
pub struct DetectorPredictor {
    device: Device,
    detector: Detector,
    selections: Vec<SelectionOptions>,
    programs: ByFormat<FrameFormat, Compiled>,
}

struct Compiled {
    program: Program,
    input: InputBlock,
    output: OutputBlock,
    frame: InputPort<u8>,
    selections: Vec<SelectionPorts>,
}

struct SelectionPorts {
    boxes_cxcywh: OutputPort<f32>,
    scores: OutputPort<f32>,
    classes: OutputPort<i32>,
    count: OutputPort<i32>,
}

impl DetectorPredictor {
    /// Nothing is compiled yet. It selects the 300 best queries of an image, or all where there are fewer.
    pub fn new(device: &Device, detector: Detector) -> Self {
        let best = SelectionOptions {
            max_detections: MAX_DETECTIONS,
            score_threshold: 0.0,
            ..SelectionOptions::default()
        };
        Self::with_selections(device, detector, vec![best])
    }

    /// With what to select of everything that the detector sees, all by one run of it.
    pub fn with_selections(device: &Device, detector: Detector, selections: Vec<SelectionOptions>) -> Self {
        DetectorPredictor { device: device.clone(), detector, selections, programs: ByFormat::default() }
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
        if !(0.0..=1.0).contains(&score_threshold) {
            return Err(DetectError::Threshold(score_threshold));
        }
        let (width, height) = (image.width, image.height);
        let Some(best) = self.select(image)?.next() else { return Ok(Vec::new()) };
        let found = best.boxes_cxcywh.iter().zip(best.scores).zip(best.classes);
        Ok(found
            .take_while(|((_, score), _)| **score >= score_threshold)
            .map(|((&box_cxcywh, &score), &class)| Detection {
                box_xyxy: boxes::xyxy_from_cxcywh(box_cxcywh, width, height),
                score,
                class: usize::try_from(class).unwrap_or(usize::MAX),
            })
            .collect())
    }

    /// What each selection takes of an image, in their order.
    pub fn select<'a, P: Into<InputBytes<'a>> + Copy>(
        &mut self,
        image: &FrameView<'a, P>,
    ) -> Result<impl Iterator<Item = Selected<'_>> + use<'_, 'a, P>, DetectError> {
        let pixels: InputBytes<'a> = image.pixels.into();
        image.check_bytes(pixels.bytes())?;
        let DetectorPredictor { device, detector, selections, programs } = self;
        let format = image.format();
        let compiled = programs.select(format, || Compiled::new(device, detector, selections, format))?;
        let Compiled { program, input, output, frame, selections } = compiled;
        program.run_frame_with(input, (*frame, pixels), output, Budget::RESIDENT_FRAME)?;
        let output = &*output;
        Ok(selections.iter().map(move |ports| ports.read(output)))
    }
}

impl Compiled {
    fn new(
        device: &Device,
        detector: &Detector,
        selections: &[SelectionOptions],
        format: FrameFormat,
    ) -> Result<Self, DetectError> {
        let mut g = Graph::new("detect");
        let FrameFormat { height, width, channels } = format;
        let (frame, frame_port) = g.input_port("frame", [height, width, channels])?;
        let found = detector.detect(&mut g, frame)?;
        let declare = |(index, options): (usize, &SelectionOptions)| {
            SelectionPorts::declare(&mut g, index, &found, *options)
        };
        let selections = selections.iter().enumerate().map(declare).collect::<Result<_, _>>()?;
        let program = Program::compile(g, device, &CompileOptions::default())?;
        let (input, output) = (program.input_block()?, program.output_block()?);
        Ok(Compiled { program, input, output, frame: frame_port, selections })
    }
}

impl SelectionPorts {
    fn declare(
        g: &mut Graph,
        index: usize,
        found: &DetectorTensors,
        options: SelectionOptions,
    ) -> Result<Self, GraphError> {
        let selected = select_detections(g, found.pred_logits, found.pred_boxes, options)?;
        Ok(SelectionPorts {
            boxes_cxcywh: g.output_port(format!("{index}.boxes_cxcywh"), selected.boxes_cxcywh)?,
            scores: g.output_port(format!("{index}.scores"), selected.scores)?,
            classes: g.output_port(format!("{index}.classes"), selected.classes)?,
            count: g.output_port(format!("{index}.count"), selected.count)?,
        })
    }

    fn read<'a>(&self, output: &'a OutputBlock) -> Selected<'a> {
        let (boxes_cxcywh, _) = self.boxes_cxcywh.read(output).as_chunks::<4>();
        let count = usize::try_from(self.count.read(output)[0]).unwrap_or(0).min(boxes_cxcywh.len());
        Selected {
            boxes_cxcywh: &boxes_cxcywh[..count],
            scores: &self.scores.read(output)[..count],
            classes: &self.classes.read(output)[..count],
        }
    }
}
