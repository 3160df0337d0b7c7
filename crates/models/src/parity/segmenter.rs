//! A segmenter: the image embedding, then the masks of two prompts.

use ultramotion_engine::graph::Graph;
use ultramotion_engine::tensor::{DType, HostTensor};
use ultramotion_engine::{CompileOptions, Device, Program};

use super::compare::{overlap_error, relative_l2, sampled, sampled_nchw};
use super::fixture::Fixture;
use super::{Check, Mask, ParityError, ParityOptions, Tolerances};
use crate::parameters::{ParameterSpec, Parameters};
use crate::segmenter::{DecodedMasks, MaskOutput, PointKind, Prompts, SegmenterNetwork};
use crate::zoo::{Architecture, Network, Sizes};

/// Side of the part of the image that other weights are tried on: the interpreter would take minutes for all of it.
const OTHER_SALT_SIDE: usize = 256;

/// The prompts of the fixtures, in pixels of an input of this side; scaled for another.
const PROMPT_SIDE: usize = 1024;
const BOXES_XYXY: [f32; 12] =
    [100.0, 150.0, 400.0, 500.0, 600.0, 300.0, 900.0, 620.0, 20.0, 20.0, 1000.0, 1000.0];
const POINTS_XY: [f32; 4] = [512.0, 300.0, 200.0, 800.0];
const POINT_KINDS: [i32; 2] = [PointKind::Positive as i32, PointKind::Negative as i32];

/// Which values of an output a fixture holds, or samples.
#[derive(Clone, Copy)]
enum Part {
    /// A feature map, channels first.
    Map,
    /// One entry of the leading dimension.
    Entry(usize),
    All,
}

/// Name in the fixture, name of the output, part of it, whether it is a mask.
const COMPARED: [(&str, &str, Part, bool); 7] = [
    ("image_embedding.sample", "image_embedding", Part::Map, false),
    ("box.sparse_embedding", "box.sparse_embedding", Part::All, false),
    ("box.low_res_masks.sample", "box.low_res_masks", Part::Entry(0), true),
    ("box.low_res_mask_1", "box.low_res_masks", Part::Entry(1), true),
    ("box.iou", "box.iou", Part::All, false),
    ("points_mask.low_res_masks.sample", "points_mask.low_res_masks", Part::All, true),
    ("points_mask.iou", "points_mask.iou", Part::All, false),
];

pub(super) fn check(
    architecture: Architecture,
    fixture: &Fixture,
    device: &Device,
    options: &ParityOptions,
) -> Result<Vec<Check>, ParityError> {
    let frame = fixture.frame()?;
    let (frame, side) = match *frame.shape().dims() {
        [h, w, _] if h == w && options.salt.is_none() => (frame, h),
        [h, w, _] if h == w => {
            let side = h.min(OTHER_SALT_SIDE);
            (top_left(&frame, w, side), side)
        }
        _ => return Err(fixture.error(format!("its image {} is not square", frame.shape()))),
    };
    let network = architecture.network(Sizes { input_hw: Some([side; 2]), ..Sizes::default() });
    let Network::Segmenter(network) = network.map_err(|e| fixture.error(e.to_string()))? else {
        unreachable!("{architecture} is listed as a segmenter");
    };
    let mut description = Parameters::describe();
    graph(&*network, &mut description)?;
    let weights = fixture.weights(&each_once(description.specs()), options.salt.as_deref(), |_| false)?;

    let scale = side as f32 / PROMPT_SIDE as f32;
    let boxes = HostTensor::f32([3, 4], BOXES_XYXY.map(|v| v * scale));
    let points = HostTensor::f32([1, 2, 2], POINTS_XY.map(|v| v * scale));
    let kinds = HostTensor::i32([1, 2], POINT_KINDS);
    let run = |device: &Device| -> Result<Vec<(String, HostTensor)>, ParityError> {
        let mut parameters = Parameters::new(&weights);
        let graph = graph(&*network, &mut parameters)?;
        let mismatch = parameters.finish(|name| network.unused_parameter(name));
        mismatch.map_err(|mismatch| fixture.weights_error(mismatch))?;
        let names: Vec<String> = graph.outputs().iter().map(|p| p.name.clone()).collect();
        let mut program = Program::compile(graph, device, &CompileOptions::default())?;
        Ok(names.into_iter().zip(program.run(&[&frame, &boxes, &points, &kinds])?).collect())
    };
    let got = run(device)?;
    let expected = options.salt.is_some().then(|| run(&Device::reference())).transpose()?;
    let tolerances = Tolerances::of(device);
    let check = |&(name, output, part, is_mask): &(&str, &str, Part, bool)| {
        let (got, expected) = match &expected {
            Some(expected) => (values(&got, output, part, None), values(expected, output, part, None)),
            None => {
                let expected = fixture.f32(name)?;
                (values(&got, output, part, Some(expected.len())), expected.to_vec())
            }
        };
        let (error, tolerance) = match tolerances.mask {
            Mask::Logits(tolerance) if is_mask => (relative_l2(&got, &expected), tolerance),
            Mask::Overlap(tolerance) if is_mask => (overlap_error(&got, &expected), tolerance),
            _ => (relative_l2(&got, &expected), tolerances.feature),
        };
        Ok(Check::new(name.trim_end_matches(".sample"), error, tolerance))
    };
    COMPARED.iter().map(check).collect()
}

/// Values of a part of an output: all, or as many as a fixture holds. None for an output that is not there, which is
/// equal to nothing.
fn values(outputs: &[(String, HostTensor)], name: &str, part: Part, count: Option<usize>) -> Vec<f32> {
    let Some((_, output)) = outputs.iter().find(|(n, _)| n == name) else { return Vec::new() };
    let all = output.as_f32().unwrap_or_default();
    let part_of_all = match part {
        Part::Map => return sampled_nchw(output, count.unwrap_or(all.len())),
        Part::All => all,
        Part::Entry(i) => {
            let len = all.len() / output.shape()[0];
            &all[i * len..][..len]
        }
    };
    sampled(part_of_all, count.unwrap_or(part_of_all.len()))
}

/// The part of a grey frame at the top left.
fn top_left(frame: &HostTensor, width: usize, side: usize) -> HostTensor {
    let rows = frame.bytes().chunks(width).take(side);
    HostTensor::u8([side, side, 1], rows.flat_map(|row| &row[..side]).copied().collect::<Vec<_>>())
}

/// The graph encodes and decodes two prompts, and so asks for some parameters twice.
fn each_once(specs: &[ParameterSpec]) -> Vec<ParameterSpec> {
    let mut names = std::collections::HashSet::new();
    specs.iter().filter(|spec| names.insert(&spec.name)).cloned().collect()
}

/// A grey frame of the input's size, three boxes, and two points of one object → embeddings, masks and scores. The
/// points go with the first box's mask as mask prompt.
fn graph(network: &dyn SegmenterNetwork, parameters: &mut Parameters<'_>) -> Result<Graph, ParityError> {
    let mut g = Graph::new("segmenter");
    let [h, w] = network.input_hw();
    let frame = g.input("frame", DType::U8, [h, w, 1])?;
    let image = g.image_to_tensor(frame, network.image_transform([h, w]))?;
    let embedding = network.encode(&mut g, image, parameters)?;
    g.output("image_embedding", embedding)?;

    let prompts = Prompts::boxes(g.input("boxes", DType::F32, [3, 4])?);
    let by_box = network.decode(&mut g, embedding, &prompts, MaskOutput::One, parameters)?;
    let low_res_masks = by_box.low_res_masks;
    outputs(&mut g, "box", by_box)?;

    let points = g.input("points", DType::F32, [1, 2, 2])?;
    let kinds = g.input("kinds", DType::I32, [1, 2])?;
    let mask = g.slice(low_res_masks, 0, 0, 1)?;
    let [low_h, low_w] = network.low_res_hw();
    let mask = g.reshape(mask, [1, low_h, low_w, 1])?;
    let prompts = Prompts { points: Some((points, kinds)), mask: Some(mask), ..Prompts::default() };
    let by_points = network.decode(&mut g, embedding, &prompts, MaskOutput::Three, parameters)?;
    outputs(&mut g, "points_mask", by_points)?;
    Ok(g)
}

fn outputs(g: &mut Graph, prompt: &str, masks: DecodedMasks) -> Result<(), ParityError> {
    for (name, value) in masks.features {
        g.output(format!("{prompt}.{name}"), value)?;
    }
    g.output(format!("{prompt}.low_res_masks"), masks.low_res_masks)?;
    g.output(format!("{prompt}.iou"), masks.iou)?;
    Ok(())
}
