//! D-FINE: features, scores and boxes.

use ultramotion_engine::graph::Graph;
use ultramotion_engine::tensor::{DType, HostTensor};
use ultramotion_engine::{CompileOptions, Device, Program};

use super::compare::{nearest_boxes, relative_l2, sampled_nchw, sorted_scores};
use super::fixture::Fixture;
use super::{Check, ParityError, ParityOptions, Tolerances};
use crate::dfine::{self, DfineConfig};
use crate::parameters::Parameters;

/// Parameters that the rule of the fixtures does not fill.
fn constructed(name: &str) -> bool {
    ["anchors", "valid_mask", "decoder.up", "decoder.reg_scale", "project"].iter().any(|k| name.contains(k))
}

pub(super) fn check(
    fixture: &Fixture,
    device: &Device,
    options: &ParityOptions,
) -> Result<Vec<Check>, ParityError> {
    let frame = fixture.frame()?;
    let config = DfineConfig {
        num_classes: fixture.number("num_classes")?,
        input_hw: [frame.shape()[0], frame.shape()[1]],
        ..DfineConfig::named(fixture.metadata("model")?)?
    };
    config.validate()?;
    let mut description = Parameters::describe();
    graph(&config, &mut description)?;
    let weights = fixture.weights(description.specs(), options.salt.as_deref(), constructed)?;

    let run = |device: &Device| -> Result<Outputs, ParityError> {
        let mut parameters = Parameters::new(&weights);
        let graph = graph(&config, &mut parameters)?;
        let mismatch = parameters.finish(|name| config.unused_parameter(name));
        mismatch.map_err(|mismatch| fixture.weights_error(mismatch))?;
        let names: Vec<String> = graph.outputs().iter().map(|p| p.name.clone()).collect();
        let mut program = Program::compile(graph, device, &CompileOptions::default())?;
        Ok(Outputs(names.into_iter().zip(program.run(&[&frame])?).collect()))
    };
    let got = run(device)?;
    let mut checks = Vec::new();
    let tolerances = Tolerances::of(device);
    if options.salt.is_some() {
        let expected = run(&Device::reference())?;
        for (name, map) in got.features() {
            let error = relative_l2(values(map), expected.values(name));
            checks.push(Check::new(name, error, tolerances.feature));
        }
        checks.extend(output_checks(&got, expected.values(LOGITS), expected.values(BOXES), tolerances));
    } else {
        for (name, map) in got.features() {
            let expected = fixture.f32(&format!("{name}.sample"))?;
            let error = relative_l2(&sampled_nchw(map, expected.len()), expected);
            checks.push(Check::new(name, error, tolerances.feature));
        }
        checks.extend(output_checks(&got, fixture.f32(LOGITS)?, fixture.f32(BOXES)?, tolerances));
    }
    Ok(checks)
}

const LOGITS: &str = "pred_logits";
const BOXES: &str = "pred_boxes";

/// A run's outputs by name, in the order of computation.
struct Outputs(Vec<(String, HostTensor)>);

impl Outputs {
    fn features(&self) -> impl Iterator<Item = (&str, &HostTensor)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value)).filter(|(_, v)| v.shape().rank() == 4)
    }
    /// Empty for a name that is not there, which is equal to nothing.
    fn values(&self, name: &str) -> &[f32] {
        self.0.iter().find(|(n, _)| n == name).map_or(&[], |(_, value)| values(value))
    }
}

fn values(tensor: &HostTensor) -> &[f32] {
    tensor.as_f32().unwrap_or_default()
}

fn output_checks(
    got: &Outputs,
    expected_logits: &[f32],
    expected_boxes: &[f32],
    tolerances: Tolerances,
) -> [Check; 2] {
    let scores = sorted_scores(got.values(LOGITS), expected_logits);
    let boxes = nearest_boxes(got.values(BOXES), expected_boxes);
    [Check::new("pred_scores", scores, tolerances.score), Check::new(BOXES, boxes, tolerances.boxes)]
}

/// A grey frame `[H, W, 1]` of the input's size → features, logits and boxes.
fn graph(config: &DfineConfig, parameters: &mut Parameters<'_>) -> Result<Graph, ParityError> {
    let mut g = Graph::new(config.name());
    let [h, w] = config.input_hw;
    let frame = g.input("frame", DType::U8, [h, w, 1])?;
    let image = g.image_to_tensor(frame, config.image_transform())?;
    let tensors = dfine::build(&mut g, image, parameters, config)?;
    for (part, maps) in [("backbone", &tensors.backbone), ("encoder", &tensors.encoder)] {
        for (i, &map) in maps.iter().enumerate() {
            g.output(format!("{part}.{i}"), map)?;
        }
    }
    g.output(LOGITS, tensors.pred_logits)?;
    g.output(BOXES, tensors.pred_boxes)?;
    Ok(g)
}
