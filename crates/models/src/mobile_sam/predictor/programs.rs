//! The programs behind a predictor. They hand each other tensors on the device as states: the network's input, the
//! embedding, the low-resolution logits.

use ultramotion_engine::graph::{Graph, Tensor};
use ultramotion_engine::tensor::{DType, HostTensor, Shape};
use ultramotion_engine::{CompileOptions, Device, Program, StateStore};

use super::{ObjectPrompt, PredictorError};
use crate::checkpoint::Weights;
use crate::mobile_sam::config::{EMBED_DIM, MobileSamConfig};
use crate::mobile_sam::geometry::MaskGeometry;
use crate::mobile_sam::mask_decoder::{MaskOutput, build_decoder};
use crate::mobile_sam::postprocess::{logits_to_source, masks_to_source};
use crate::mobile_sam::prompt_encoder::{PointKind, Prompts, encode_prompts};
use crate::mobile_sam::{build_encoder, unused_parameter};
use crate::parameters::Parameters;

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
pub(super) struct Finish {
    pub output: MaskOutput,
    pub logits: bool,
    pub low_res: bool,
}

/// Masks of one batch; the leading dimension is the number of objects in a run.
pub(super) struct Finished {
    pub bits: HostTensor,
    pub area_px: HostTensor,
    pub box_xyxy: HostTensor,
    pub logits: Option<HostTensor>,
    pub low_res: Option<HostTensor>,
}

pub(super) struct Programs {
    device: Device,
    weights: Weights,
    config: MobileSamConfig,
    objects: usize,
    states: StateStore,
    encoder: Program,
    /// For the last frame's shape.
    preprocess: Option<(Shape, Program)>,
    /// Most recently used last.
    decoders: Vec<(PromptForm, MaskOutput, Program)>,
    /// For the last frame's size.
    finishers: Vec<(Finish, Program)>,
}

impl Programs {
    pub fn new(
        device: &Device,
        weights: &Weights,
        config: MobileSamConfig,
        objects: usize,
    ) -> Result<Self, PredictorError> {
        let states = StateStore::new();
        let mut parameters = Parameters::new(weights);
        let mut g = Graph::new("encode");
        let image = network_input(&mut g, &config)?;
        let encoded = build_encoder(&mut g, image, &mut parameters, &config)?;
        let embedding = embedding(&mut g, &config)?;
        g.set_state(embedding, encoded)?;
        // Built once here too, so that weights that do not fit are reported before the first prompt.
        decoder_graph(&config, 1, BOX, MaskOutput::One, &mut parameters)?;
        parameters.finish(unused_parameter)?;
        let encoder = compile(device, &states, g)?;
        Ok(Programs {
            device: device.clone(),
            weights: weights.clone(),
            config,
            objects,
            states,
            encoder,
            preprocess: None,
            decoders: Vec::new(),
            finishers: Vec::new(),
        })
    }

    /// A frame `[H, W, C]` becomes the embedding on the device.
    pub fn encode(&mut self, frame: &HostTensor, geometry: MaskGeometry) -> Result<(), PredictorError> {
        if self.preprocess.as_ref().is_none_or(|(shape, _)| shape != frame.shape()) {
            let mut g = Graph::new("preprocess");
            let input = g.input("frame", DType::U8, frame.shape().clone())?;
            let image = g.image_to_tensor(input, self.config.image_transform(geometry.source_hw))?;
            let state = network_input(&mut g, &self.config)?;
            g.set_state(state, image)?;
            self.preprocess = None;
            self.finishers.clear();
            self.preprocess = Some((frame.shape().clone(), compile(&self.device, &self.states, g)?));
        }
        if let Some((_, program)) = &mut self.preprocess {
            program.run(&[frame])?;
        }
        let done = self.encoder.launch()?;
        self.encoder.wait(done)?;
        Ok(())
    }

    /// Low-resolution logits stay on the device; returns the estimated IoU `[objects, M]`.
    pub fn decode(
        &mut self,
        form: PromptForm,
        output: MaskOutput,
        prompts: &[&ObjectPrompt<'_>],
        geometry: MaskGeometry,
    ) -> Result<HostTensor, PredictorError> {
        let inputs = prompt_values(form, prompts, self.objects, &self.config, geometry);
        let found = self.decoders.iter().position(|(f, o, _)| (*f, *o) == (form, output));
        let mut decoder = match found {
            Some(at) => self.decoders.remove(at),
            None => {
                if self.decoders.len() == MAX_DECODERS {
                    self.decoders.remove(0);
                }
                let mut parameters = Parameters::new(&self.weights);
                let g = decoder_graph(&self.config, self.objects, form, output, &mut parameters)?;
                (form, output, compile(&self.device, &self.states, g)?)
            }
        };
        let outputs = decoder.2.run(&inputs.iter().collect::<Vec<_>>());
        self.decoders.push(decoder);
        Ok(outputs?.swap_remove(0))
    }

    /// Masks of the first `count` objects of the last run of a decoder.
    pub fn finish(
        &mut self,
        finish: Finish,
        geometry: MaskGeometry,
        count: usize,
    ) -> Result<Finished, PredictorError> {
        let found = self.finishers.iter().position(|(f, _)| *f == finish);
        let at = match found {
            Some(at) => at,
            None => {
                let mut g = Graph::new("finish");
                let count = g.input("count", DType::I32, [1])?;
                let state = low_res_masks(&mut g, &self.config, self.objects, finish.output)?;
                let low_res = g.limit_rows(state, count)?;
                let masks = masks_to_source(&mut g, low_res, geometry, None)?;
                g.output("bits", masks.bits)?;
                g.output("area_px", masks.area_px)?;
                g.output("box_xyxy", masks.box_xyxy)?;
                if finish.logits {
                    let logits = logits_to_source(&mut g, low_res, geometry)?;
                    g.output("logits", logits)?;
                }
                if finish.low_res {
                    g.output("low_res", state)?;
                }
                self.finishers.push((finish, compile(&self.device, &self.states, g)?));
                self.finishers.len() - 1
            }
        };
        let count = HostTensor::i32([1], vec![count as i32]);
        let mut outputs = self.finishers[at].1.run(&[&count])?.into_iter();
        let mut next = || outputs.next().expect("the graph above has this output");
        Ok(Finished {
            bits: next(),
            area_px: next(),
            box_xyxy: next(),
            logits: finish.logits.then(&mut next),
            low_res: finish.low_res.then(&mut next),
        })
    }
}

const BOX: PromptForm = PromptForm { has_box: true, points: 0, has_mask: false };

fn compile(device: &Device, states: &StateStore, g: Graph) -> Result<Program, PredictorError> {
    let options = CompileOptions { states: Some(states.clone()), ..CompileOptions::default() };
    Ok(Program::compile(g, device, &options)?)
}

fn network_input(g: &mut Graph, config: &MobileSamConfig) -> Result<Tensor, PredictorError> {
    let side = config.input_size();
    Ok(g.state("network_input", HostTensor::zeros(DType::F32, [1, side, side, 3]))?)
}

fn embedding(g: &mut Graph, config: &MobileSamConfig) -> Result<Tensor, PredictorError> {
    let side = config.embedding_size();
    Ok(g.state("image_embedding", HostTensor::zeros(DType::F32, [1, side, side, EMBED_DIM]))?)
}

fn low_res_masks(
    g: &mut Graph,
    config: &MobileSamConfig,
    objects: usize,
    output: MaskOutput,
) -> Result<Tensor, PredictorError> {
    let (side, masks) = (config.low_res_size(), output.count());
    let initial = HostTensor::zeros(DType::F32, [objects, masks, side, side]);
    Ok(g.state(format!("low_res_masks_{masks}"), initial)?)
}

/// Inputs: the count, then boxes, points with kinds, and masks as the form has them. Output: the estimated IoU.
fn decoder_graph(
    config: &MobileSamConfig,
    objects: usize,
    form: PromptForm,
    output: MaskOutput,
    parameters: &mut Parameters<'_>,
) -> Result<Graph, PredictorError> {
    let mut g = Graph::new("decode");
    let count = g.input("count", DType::I32, [1])?;
    let counted = |g: &mut Graph, name: &str, dtype: DType, rest: &[usize]| {
        let input = g.input(name, dtype, [&[objects], rest].concat())?;
        g.limit_rows(input, count)
    };
    let mut prompts = Prompts::default();
    if form.has_box {
        prompts.boxes_xyxy = Some(counted(&mut g, "boxes_xyxy", DType::F32, &[4])?);
    }
    if form.points > 0 {
        let points = counted(&mut g, "points_xy", DType::F32, &[form.points, 2])?;
        prompts.points = Some((points, counted(&mut g, "point_kinds", DType::I32, &[form.points])?));
    }
    if form.has_mask {
        let side = config.low_res_size();
        prompts.mask = Some(counted(&mut g, "mask", DType::F32, &[side, side, 1])?);
    }
    let embedding = embedding(&mut g, config)?;
    let prompts = encode_prompts(&mut g, &prompts, parameters, config)?;
    let masks = build_decoder(&mut g, embedding, &prompts, parameters, config, output)?;
    let state = low_res_masks(&mut g, config, objects, output)?;
    g.set_state(state, masks.low_res_masks)?;
    g.output("iou", masks.iou)?;
    Ok(g)
}

/// Values for the inputs of [`decoder_graph`]; coordinates go from pixels of the image to pixels of the input.
fn prompt_values(
    form: PromptForm,
    prompts: &[&ObjectPrompt<'_>],
    objects: usize,
    config: &MobileSamConfig,
    geometry: MaskGeometry,
) -> Vec<HostTensor> {
    let scale = |axis: usize| geometry.resized_hw[1 - axis] as f64 / geometry.source_hw[1 - axis] as f64;
    let (scale_x, scale_y) = (scale(0), scale(1));
    let place = |x: f32, y: f32| [(f64::from(x) * scale_x) as f32, (f64::from(y) * scale_y) as f32];
    let padded = |mut values: Vec<f32>, rest: &[usize]| {
        let shape = Shape::from([&[objects], rest].concat());
        values.resize(shape.numel(), 0.0);
        HostTensor::f32(shape, values)
    };
    let mut inputs = vec![HostTensor::i32([1], vec![prompts.len() as i32])];
    if form.has_box {
        let corners = prompts.iter().filter_map(|p| p.box_xyxy);
        let boxes = corners.flat_map(|[x1, y1, x2, y2]| [place(x1, y1), place(x2, y2)]).flatten();
        inputs.push(padded(boxes.collect(), &[4]));
    }
    if form.points > 0 {
        let points = prompts.iter().flat_map(|p| &p.points);
        let positions = points.clone().flat_map(|point| place(point.x, point.y));
        inputs.push(padded(positions.collect(), &[form.points, 2]));
        let kind = |positive| if positive { PointKind::Positive } else { PointKind::Negative } as i32;
        let mut kinds: Vec<i32> = points.map(|point| kind(point.positive)).collect();
        kinds.resize(objects * form.points, PointKind::Padding as i32);
        inputs.push(HostTensor::i32([objects, form.points], kinds));
    }
    if form.has_mask {
        let side = config.low_res_size();
        let logits = prompts.iter().filter_map(|p| p.mask).flatten().copied();
        inputs.push(padded(logits.collect(), &[side, side, 1]));
    }
    inputs
}
