//! The programs behind a predictor. They hand each other tensors on the device as states: the network's input, the
//! embedding, the low-resolution logits.

use ultramotion_engine::graph::{Graph, InputPort, OutputPort, Tensor};
use ultramotion_engine::ledger::Budget;
use ultramotion_engine::tensor::{DType, Element, HostTensor};
use ultramotion_engine::{CompileOptions, Device, InputBlock, InputBytes, OutputBlock, Program, StateStore};

use super::{ObjectPrompt, PredictorError};
use crate::segmenter::{MaskOutput, PointKind, Prompts};
use crate::zoo::Segmenter;

/// Decoders kept compiled, each with its own weights and scratch: about 90 MB for 4 objects and an input of 1024.
const MAX_DECODERS: usize = 3;

/// What a prompt consists of: a decoder takes prompts of one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PromptForm {
    has_box: bool,
    points: usize,
    has_mask: bool,
}

impl PromptForm {
    pub fn of(prompt: &ObjectPrompt<'_>) -> Self {
        PromptForm {
            has_box: prompt.box_xyxy.is_some(),
            points: prompt.points.len(),
            has_mask: prompt.mask.is_some(),
        }
    }
}

/// What is made of the low-resolution logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MaskProducts {
    pub output: MaskOutput,
    pub logits: bool,
    pub low_res: bool,
}

/// Masks of one batch; the leading dimension is the number of objects in a run.
pub(super) struct BatchMasks<'a> {
    pub iou: &'a [f32],
    pub bits: &'a [u8],
    pub area_px: &'a [i32],
    pub box_xyxy: &'a [i32],
    pub logits: Option<&'a [f32]>,
    pub low_res: Option<&'a [f32]>,
}

pub(super) struct Programs {
    device: Device,
    segmenter: Segmenter,
    objects: usize,
    states: StateStore,
    encoder: Program,
    /// For the last frame's shape.
    preprocess: Option<Preprocess>,
    /// Gives the embedding out, once it was asked for.
    embedding: Option<(Compiled, OutputPort<f32>)>,
    /// Most recently used last.
    decoders: Vec<Decoder>,
    /// For the last frame's size.
    finishers: Vec<Finisher>,
}

/// A raw frame → the network's input, which stays on the device.
struct Preprocess {
    frame_hwc: [usize; 3],
    program: Compiled,
    frame: InputPort<u8>,
}

/// Prompts of one form → low-resolution logits, which stay on the device.
struct Decoder {
    form: PromptForm,
    output: MaskOutput,
    program: Compiled,
    ports: DecoderPorts,
}

struct DecoderPorts {
    count: InputPort<i32>,
    boxes_xyxy: Option<InputPort<f32>>,
    points: Option<(InputPort<f32>, InputPort<i32>)>,
    mask: Option<InputPort<f32>>,
    iou: OutputPort<f32>,
}

/// Low-resolution logits → masks of the frame's size.
struct Finisher {
    finish: MaskProducts,
    program: Compiled,
    count: InputPort<i32>,
    bits: OutputPort<u8>,
    area_px: OutputPort<i32>,
    box_xyxy: OutputPort<i32>,
    logits: Option<OutputPort<f32>>,
    low_res: Option<OutputPort<f32>>,
}

/// A program with its values on the host.
struct Compiled {
    program: Program,
    input: InputBlock,
    output: OutputBlock,
}

impl Compiled {
    fn new(device: &Device, states: &StateStore, g: Graph) -> Result<Self, PredictorError> {
        let program = compile(device, states, g)?;
        let (input, output) = (program.input_block()?, program.output_block()?);
        Ok(Compiled { program, input, output })
    }

    fn run(&mut self) -> Result<(), PredictorError> {
        Ok(self.program.run_frame(&self.input, &mut self.output, Budget::RESIDENT_FRAME)?)
    }

    /// With the bytes of one input from wherever they are.
    fn run_with(&mut self, port: InputPort<u8>, bytes: InputBytes<'_>) -> Result<(), PredictorError> {
        let Compiled { program, input, output } = self;
        Ok(program.run_frame_with(input, (port, bytes), output, Budget::RESIDENT_FRAME)?)
    }
}

impl Programs {
    pub fn new(device: &Device, segmenter: Segmenter, objects: usize) -> Result<Self, PredictorError> {
        let states = StateStore::new();
        let mut g = Graph::new("encode");
        let image = network_input(&mut g, &segmenter)?;
        let encoded = segmenter.encode_image(&mut g, image)?;
        let embedding = embedding(&mut g, &segmenter)?;
        g.set_state(embedding, encoded)?;
        let encoder = compile(device, &states, g)?;
        Ok(Programs {
            device: device.clone(),
            segmenter,
            objects,
            states,
            encoder,
            preprocess: None,
            embedding: None,
            decoders: Vec::new(),
            finishers: Vec::new(),
        })
    }

    pub fn segmenter(&self) -> &Segmenter {
        &self.segmenter
    }

    /// A frame `[H, W, C]` becomes the embedding on the device.
    pub fn encode(&mut self, pixels: InputBytes<'_>, frame_hwc: [usize; 3]) -> Result<(), PredictorError> {
        let preprocess = match self.preprocess.take().filter(|kept| kept.frame_hwc == frame_hwc) {
            Some(kept) => self.preprocess.insert(kept),
            None => {
                self.finishers.clear();
                let mut g = Graph::new("preprocess");
                let (frame, port) = g.input_port("frame", frame_hwc)?;
                let [height, width, _] = frame_hwc;
                let image =
                    g.image_to_tensor(frame, self.segmenter.network().image_transform([height, width]))?;
                let state = network_input(&mut g, &self.segmenter)?;
                g.set_state(state, image)?;
                let program = Compiled::new(&self.device, &self.states, g)?;
                self.preprocess.insert(Preprocess { frame_hwc, program, frame: port })
            }
        };
        preprocess.program.run_with(preprocess.frame, pixels)?;
        let done = self.encoder.launch()?;
        self.encoder.wait(done)?;
        Ok(())
    }

    /// The embedding that is on the device, in the shape that the network says.
    pub fn read_embedding(&mut self) -> Result<&[f32], PredictorError> {
        let (program, port) = match self.embedding.take() {
            Some(kept) => self.embedding.insert(kept),
            None => {
                let mut g = Graph::new("embedding");
                let state = embedding(&mut g, &self.segmenter)?;
                let port = g.output_port("embedding", state)?;
                self.embedding.insert((Compiled::new(&self.device, &self.states, g)?, port))
            }
        };
        program.run()?;
        Ok(port.read(&program.output))
    }

    /// Masks of objects whose prompts have one form, in an image of this height and width.
    pub fn predict(
        &mut self,
        form: PromptForm,
        finish: MaskProducts,
        prompts: &[&ObjectPrompt<'_>],
        source_hw: [usize; 2],
    ) -> Result<BatchMasks<'_>, PredictorError> {
        self.select_decoder(form, finish.output)?;
        let finisher = self.select_finisher(finish, source_hw)?;
        let decoder = self.decoders.last_mut().expect("select_decoder() leaves one");
        let resized_hw = self.segmenter.network().image_transform(source_hw).resized_hw;
        let scale_xy = [1, 0].map(|axis| resized_hw[axis] as f64 / source_hw[axis] as f64);
        decoder.ports.write(&mut decoder.program.input, prompts, scale_xy);
        decoder.program.run()?;
        let finisher = &mut self.finishers[finisher];
        finisher.count.write(&mut finisher.program.input, &[prompts.len() as i32]);
        finisher.program.run()?;
        let output = &finisher.program.output;
        Ok(BatchMasks {
            iou: decoder.ports.iou.read(&decoder.program.output),
            bits: finisher.bits.read(output),
            area_px: finisher.area_px.read(output),
            box_xyxy: finisher.box_xyxy.read(output),
            logits: finisher.logits.map(|port| port.read(output)),
            low_res: finisher.low_res.map(|port| port.read(output)),
        })
    }

    /// Makes the decoder for a form of prompts the last one.
    fn select_decoder(&mut self, form: PromptForm, output: MaskOutput) -> Result<(), PredictorError> {
        if let Some(at) = self.decoders.iter().position(|d| (d.form, d.output) == (form, output)) {
            self.decoders[at..].rotate_left(1);
            return Ok(());
        }
        if self.decoders.len() == MAX_DECODERS {
            self.decoders.remove(0);
        }
        let (g, ports) = decoder_graph(&self.segmenter, self.objects, form, output)?;
        let program = Compiled::new(&self.device, &self.states, g)?;
        self.decoders.push(Decoder { form, output, program, ports });
        Ok(())
    }

    /// Position of what finishes so.
    fn select_finisher(
        &mut self,
        finish: MaskProducts,
        source_hw: [usize; 2],
    ) -> Result<usize, PredictorError> {
        if let Some(at) = self.finishers.iter().position(|f| f.finish == finish) {
            return Ok(at);
        }
        let network = self.segmenter.network();
        let mut g = Graph::new("finish");
        let (count, count_port) = g.input_port("count", [1])?;
        let state = low_res_masks(&mut g, &self.segmenter, self.objects, finish.output)?;
        let low_res = g.limit_rows(state, count)?;
        let masks = network.masks_to_source(&mut g, low_res, source_hw)?;
        let bits = g.output_port("bits", masks.bits)?;
        let area_px = g.output_port("area_px", masks.area_px)?;
        let box_xyxy = g.output_port("box_xyxy", masks.box_xyxy)?;
        let logits = if finish.logits {
            let logits = network.logits_to_source(&mut g, low_res, source_hw)?;
            Some(g.output_port("logits", logits)?)
        } else {
            None
        };
        let low_res = finish.low_res.then(|| g.output_port("low_res", state)).transpose()?;
        let program = Compiled::new(&self.device, &self.states, g)?;
        let finisher =
            Finisher { finish, program, count: count_port, bits, area_px, box_xyxy, logits, low_res };
        self.finishers.push(finisher);
        Ok(self.finishers.len() - 1)
    }
}

fn compile(device: &Device, states: &StateStore, g: Graph) -> Result<Program, PredictorError> {
    let options = CompileOptions { states: Some(states.clone()), ..CompileOptions::default() };
    Ok(Program::compile(g, device, &options)?)
}

fn network_input(g: &mut Graph, segmenter: &Segmenter) -> Result<Tensor, PredictorError> {
    let [h, w] = segmenter.network().input_hw();
    Ok(g.state("network_input", HostTensor::zeros(DType::F32, [1, h, w, 3]))?)
}

fn embedding(g: &mut Graph, segmenter: &Segmenter) -> Result<Tensor, PredictorError> {
    let shape = segmenter.network().embedding_shape();
    Ok(g.state("image_embedding", HostTensor::zeros(DType::F32, shape))?)
}

fn low_res_masks(
    g: &mut Graph,
    segmenter: &Segmenter,
    objects: usize,
    output: MaskOutput,
) -> Result<Tensor, PredictorError> {
    let ([h, w], masks) = (segmenter.network().low_res_hw(), output.count());
    let initial = HostTensor::zeros(DType::F32, [objects, masks, h, w]);
    Ok(g.state(format!("low_res_masks_{masks}"), initial)?)
}

/// The count, and boxes, points with kinds, and masks as the form has them → the estimated IoU.
fn decoder_graph(
    segmenter: &Segmenter,
    objects: usize,
    form: PromptForm,
    output: MaskOutput,
) -> Result<(Graph, DecoderPorts), PredictorError> {
    fn counted<T: Element>(
        g: &mut Graph,
        name: &str,
        shape: &[usize],
        count: Tensor,
    ) -> Result<(Tensor, InputPort<T>), PredictorError> {
        let (input, port) = g.input_port(name, shape)?;
        Ok((g.limit_rows(input, count)?, port))
    }

    let mut g = Graph::new("decode");
    let (count, count_port) = g.input_port("count", [1])?;
    let (mut prompts, mut boxes_port, mut point_ports, mut mask_port) =
        (Prompts::default(), None, None, None);
    if form.has_box {
        let (boxes, port) = counted(&mut g, "boxes_xyxy", &[objects, 4], count)?;
        (prompts.boxes_xyxy, boxes_port) = (Some(boxes), Some(port));
    }
    if form.points > 0 {
        let (points, points_port) = counted(&mut g, "points_xy", &[objects, form.points, 2], count)?;
        let (kinds, kinds_port) = counted(&mut g, "point_kinds", &[objects, form.points], count)?;
        (prompts.points, point_ports) = (Some((points, kinds)), Some((points_port, kinds_port)));
    }
    if form.has_mask {
        let [h, w] = segmenter.network().low_res_hw();
        let (mask, port) = counted(&mut g, "mask", &[objects, h, w, 1], count)?;
        (prompts.mask, mask_port) = (Some(mask), Some(port));
    }
    let embedding = embedding(&mut g, segmenter)?;
    let masks = segmenter.decode(&mut g, embedding, &prompts, output)?;
    let state = low_res_masks(&mut g, segmenter, objects, output)?;
    g.set_state(state, masks.low_res_masks)?;
    let iou = g.output_port("iou", masks.iou)?;
    let ports =
        DecoderPorts { count: count_port, boxes_xyxy: boxes_port, points: point_ports, mask: mask_port, iou };
    Ok((g, ports))
}

impl DecoderPorts {
    /// Writes prompts, the rest being zeros, which are padding. Coordinates go from pixels of the image to pixels of the
    /// network's input.
    fn write(&self, block: &mut InputBlock, prompts: &[&ObjectPrompt<'_>], [scale_x, scale_y]: [f64; 2]) {
        let place = |x: f32, y: f32| [(f64::from(x) * scale_x) as f32, (f64::from(y) * scale_y) as f32];
        block.fill(0);
        self.count.write(block, &[prompts.len() as i32]);
        if let Some(port) = self.boxes_xyxy {
            let corners = prompts.iter().filter_map(|p| p.box_xyxy);
            let boxes = corners.flat_map(|[x1, y1, x2, y2]| [place(x1, y1), place(x2, y2)]).flatten();
            fill(port.slice_mut(block), boxes);
        }
        if let Some((positions, kinds)) = self.points {
            let points = || prompts.iter().flat_map(|p| &p.points);
            fill(positions.slice_mut(block), points().flat_map(|point| place(point.x, point.y)));
            let kind = |positive| if positive { PointKind::Positive } else { PointKind::Negative } as i32;
            fill(kinds.slice_mut(block), points().map(|point| kind(point.positive)));
        }
        if let Some(port) = self.mask {
            fill(port.slice_mut(block), prompts.iter().filter_map(|p| p.mask).flatten().copied());
        }
    }
}

/// Puts values at the front.
fn fill<T>(to: &mut [T], values: impl Iterator<Item = T>) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to = value);
}
