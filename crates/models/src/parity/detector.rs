//! A detector: features, scores and boxes.

use ultramotion_engine::graph::Graph;
use ultramotion_engine::tensor::{DType, HostTensor};
use ultramotion_engine::{CompileOptions, Device, Program};

use super::compare::{nearest_boxes, relative_l2, sampled_nchw, sorted_scores};
use super::fixture::Fixture;
use super::{Check, ParityError, ParityOptions, Tolerances};
use crate::detector::DetectorNetwork;
use crate::parameters::Parameters;
use crate::zoo::{Architecture, Network, Sizes};

pub(super) fn check(
    architecture: Architecture,
    fixture: &Fixture,
    device: &Device,
    options: &ParityOptions,
) -> Result<Vec<Check>, ParityError> {
    let frame = fixture.frame()?;
    let sizes = Sizes {
        num_classes: Some(fixture.number("num_classes")?),
        input_hw: Some([frame.shape()[0], frame.shape()[1]]),
    };
    let Network::Detector(network) = architecture.network(sizes)? else {
        unreachable!("{architecture} is listed as a detector");
    };
    let mut description = Parameters::describe();
    graph(&*network, &mut description)?;
    let constructed = |name: &str| network.constructed_parameter(name);
    let weights = fixture.weights(description.specs(), options.salt.as_deref(), constructed)?;

    let run = |device: &Device| -> Result<Outputs, ParityError> {
        let mut parameters = Parameters::new(&weights);
        let graph = graph(&*network, &mut parameters)?;
        let mismatch = parameters.finish(|name| network.unused_parameter(name));
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
fn graph(network: &dyn DetectorNetwork, parameters: &mut Parameters<'_>) -> Result<Graph, ParityError> {
    let mut g = Graph::new("detector");
    let [h, w] = network.input_hw();
    let frame = g.input("frame", DType::U8, [h, w, 1])?;
    let image = g.image_to_tensor(frame, network.image_transform([h, w]))?;
    let found = network.build(&mut g, image, parameters)?;
    for (name, map) in found.features {
        g.output(name, map)?;
    }
    g.output(LOGITS, found.pred_logits)?;
    g.output(BOXES, found.pred_boxes)?;
    Ok(g)
}
