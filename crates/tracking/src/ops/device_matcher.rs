//! [`DeviceMatcher`]: batches matched on a device, by programs that are compiled once for a size.

use super::TargetTensors;
use super::match_cost::match_above;
use crate::assignment::cost::TAKEN_COST;
use crate::assignment::matcher::Shape;
use crate::assignment::{BatchItem, ClassCost, CostWeights, HungarianMatcher, Solver, UNMATCHED};
use crate::error::DeviceMatcherError;
use ultramotion_engine::graph::{Graph, GraphError, InputPort, OutputPort};
use ultramotion_engine::{CompileOptions, Device, InputBlock, OutputBlock, Program};

/// Images that one program matches. A larger batch takes several runs.
const MAX_IMAGES: usize = 64;

/// Programs that are kept, those used last.
const MAX_PROGRAMS: usize = 8;

/// Does on a device what [`HungarianMatcher::assign`] does on the host, with the same pairs.
///
/// A program has the images, the queries and the classes of a batch, and room for a number of targets that is a power of
/// two: how many there are lies on the device, so batches with other targets take the same program. A batch costs one
/// copy in, one launch and one copy out for each round.
///
/// ```
/// use ultramotion_engine::Device;
/// use ultramotion_tracking::assignment::{BatchItem, HungarianMatcher};
/// use ultramotion_tracking::ops::DeviceMatcher;
///
/// let matcher = HungarianMatcher::builder().build()?;
/// let batch = [BatchItem {
///     logits: &[-2.0, 3.0, /**/ 2.0, -1.0],
///     boxes_cxcywh: &[0.2, 0.2, 0.1, 0.1, /**/ 0.7, 0.6, 0.2, 0.2],
///     target_labels: &[0],
///     target_boxes_cxcywh: &[0.7, 0.6, 0.2, 0.3],
/// }];
/// let pairs = DeviceMatcher::new(Device::cpu(1)).assign(&matcher, &batch)?;
/// assert_eq!(pairs, matcher.assign(&batch)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DeviceMatcher {
    device: Device,
    /// The one used last is last.
    programs: Vec<BatchProgram>,
}

impl DeviceMatcher {
    /// Nothing is compiled until there is a batch.
    pub fn new(device: Device) -> Self {
        DeviceMatcher { device, programs: Vec::new() }
    }

    /// Where it matches.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// For each image its pairs (query, target), as [`HungarianMatcher::assign`].
    ///
    /// # Errors
    /// Slices that do not fit each other, and a device that fails.
    pub fn assign(
        &mut self,
        matcher: &HungarianMatcher,
        batch: &[BatchItem<'_>],
    ) -> Result<Vec<Vec<(usize, usize)>>, DeviceMatcherError> {
        let images = batch.iter().enumerate().map(|(index, item)| Ok((Shape::of(item, index)?, *item)));
        let images = images.collect::<Result<Vec<Image<'_>>, DeviceMatcherError>>()?;
        let mut pairs = Vec::with_capacity(images.len());
        let same = |(a, _): &Image<'_>, (b, _): &Image<'_>| (a.queries, a.classes) == (b.queries, b.classes);
        for group in images.chunk_by(same).flat_map(|group| group.chunks(MAX_IMAGES)) {
            let targets = group.iter().map(|(shape, _)| shape.targets).max().unwrap_or(0);
            let Shape { queries, classes, .. } = group[0].0;
            if queries == 0 || targets == 0 {
                pairs.extend(group.iter().map(|_| Vec::new()));
                continue;
            }
            let room = Shape { queries, classes, targets: targets.next_power_of_two() };
            let program = self.program(matcher, group.len(), room)?;
            pairs.extend(program.run(group, matcher.rounds())?);
        }
        Ok(pairs)
    }

    fn program(
        &mut self,
        matcher: &HungarianMatcher,
        images: usize,
        room: Shape,
    ) -> Result<&mut BatchProgram, DeviceMatcherError> {
        let (weights, class_cost, solver) = (matcher.weights(), matcher.class_cost(), matcher.mode().into());
        let key = Key { weights, class_cost, solver, images, room };
        let program = match self.programs.iter().position(|program| program.key == key) {
            Some(index) => self.programs.remove(index),
            None => {
                if self.programs.len() == MAX_PROGRAMS {
                    self.programs.remove(0);
                }
                BatchProgram::compile(key, matcher, &self.device)?
            }
        };
        Ok(self.programs.push_mut(program))
    }
}

/// An image with its sizes.
type Image<'a> = (Shape, BatchItem<'a>);

/// What a program is compiled for.
#[derive(Clone, Copy, PartialEq)]
struct Key {
    weights: CostWeights,
    class_cost: ClassCost,
    solver: Solver,
    images: usize,
    room: Shape,
}

/// A compiled matcher of a number of images, with its blocks on the host.
struct BatchProgram {
    key: Key,
    program: Program,
    input: InputBlock,
    output: OutputBlock,
    images: Vec<ImagePorts>,
}

impl BatchProgram {
    fn compile(key: Key, matcher: &HungarianMatcher, device: &Device) -> Result<Self, DeviceMatcherError> {
        let mut g = Graph::new("matcher");
        let images = (0..key.images).map(|image| ImagePorts::add(&mut g, matcher, key.room, image));
        let images = images.collect::<Result<Vec<_>, _>>()?;
        let program = Program::compile(g, device, &CompileOptions::default())?;
        let (input, output) = (program.input_block()?, program.output_block()?);
        Ok(BatchProgram { key, program, input, output, images })
    }

    fn run(
        &mut self,
        images: &[Image<'_>],
        rounds: usize,
    ) -> Result<Vec<Vec<(usize, usize)>>, DeviceMatcherError> {
        for (ports, image) in self.images.iter().zip(images) {
            ports.write(&mut self.input, image);
        }
        let mut pairs = vec![Vec::new(); images.len()];
        for _ in 0..rounds {
            self.program.upload(&self.input)?;
            let event = self.program.launch()?;
            self.program.wait(event)?;
            self.program.download(&mut self.output)?;
            for (ports, pairs) in self.images.iter().zip(&mut pairs) {
                let floor = ports.floor.slice_mut(&mut self.input);
                for (query, &target) in ports.col_of_row.read(&self.output).iter().enumerate() {
                    if target != UNMATCHED {
                        pairs.push((query, target as usize));
                        floor[query] = TAKEN_COST;
                    }
                }
            }
        }
        Ok(pairs)
    }
}

/// What goes in and out for one image with Q queries and room for T targets.
struct ImagePorts {
    logits: InputPort<f32>,
    boxes: InputPort<f32>,
    labels: InputPort<i32>,
    target_boxes: InputPort<f32>,
    /// `[1]`: targets that there are.
    count: InputPort<i32>,
    /// `[Q, 1]`: what a query's pairs cost at least: −∞, or [`TAKEN_COST`] once it was matched in an earlier round.
    floor: InputPort<f32>,
    /// `[Q]`: each query's target.
    col_of_row: OutputPort<i32>,
}

impl ImagePorts {
    fn add(
        g: &mut Graph,
        matcher: &HungarianMatcher,
        Shape { queries, classes, targets: room }: Shape,
        image: usize,
    ) -> Result<Self, GraphError> {
        let name = |what: &str| format!("{what}.{image}");
        let (logits, logits_port) = g.input_port(name("logits"), [queries, classes])?;
        let (boxes, boxes_port) = g.input_port(name("boxes"), [queries, 4])?;
        let (labels, labels_port) = g.input_port(name("labels"), [room])?;
        let (target_boxes, target_boxes_port) = g.input_port(name("target_boxes"), [room, 4])?;
        let (count, count_port) = g.input_port(name("count"), [1])?;
        let (floor, floor_port) = g.input_port(name("floor"), [queries, 1])?;
        let targets = TargetTensors { labels, boxes_cxcywh: target_boxes, count };
        let found = match_above(g, matcher, logits, boxes, targets, Some(floor))?;
        Ok(ImagePorts {
            logits: logits_port,
            boxes: boxes_port,
            labels: labels_port,
            target_boxes: target_boxes_port,
            count: count_port,
            floor: floor_port,
            col_of_row: g.output_port(name("col_of_row"), found.col_of_row)?,
        })
    }

    fn write(&self, input: &mut InputBlock, (shape, item): &Image<'_>) {
        self.logits.write(input, item.logits);
        self.boxes.write(input, item.boxes_cxcywh);
        // What lies beyond the count stays what it was: nothing reads it but for costs that nothing reads.
        self.labels.slice_mut(input)[..shape.targets].copy_from_slice(item.target_labels);
        self.target_boxes.slice_mut(input)[..4 * shape.targets].copy_from_slice(item.target_boxes_cxcywh);
        self.count.write(input, &[i32::try_from(shape.targets).unwrap_or(i32::MAX)]);
        self.floor.slice_mut(input).fill(f32::NEG_INFINITY);
    }
}
