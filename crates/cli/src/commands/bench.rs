//! `ultramotion bench`: how fast.

use std::cmp::Ordering::Equal;
use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use ultramotion::source::open_recorded;
use ultramotion_engine::graph::Graph;
use ultramotion_engine::tensor::{DType, HostTensor, Shape};
use ultramotion_engine::{CompileOptions, Device, DeviceKind, KernelTime, Program};
use ultramotion_models::segmenter::{MaskOutput, Prompts};
use ultramotion_models::zoo::{ARCHITECTURES, Architecture, Detector, Kind, Segmenter};
use ultramotion_pipeline::kpi::Quantiles;
use ultramotion_pipeline::{MAX_OBJECTS, Run};
use ultramotion_tracking::assignment::Solver;
use ultramotion_tracking::ops::{Assign, assign};
use ultramotion_types::{Frame, LatencyMs};

use crate::device::DeviceArgs;
use crate::output::{self, say};
use crate::settings::{PipelineArgs, by_fault};
use crate::usage::usage;

/// Time a whole frame, or one network alone
///
/// A whole frame is the phantom's, timed stage by stage; a network alone has made-up weights.
/// Warm-up is excluded. Medians and tails are of one run after another; for a comparison, run both sides in turn on
/// an otherwise idle machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// One part alone: dfine_n, _s, _m, _l, _x, mobile_sam_encoder, mobile_sam_decoder, or assignment_300x100 (exact, any size)
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Side of the network's input in pixels [default: 640 for D-FINE, 1024 for MobileSAM]
    #[arg(long, value_name = "SIZE")]
    input: Option<usize>,
    /// Boxes that the mask decoder is prompted with
    #[arg(long, default_value_t = 4, value_name = "N")]
    boxes: usize,
    /// Runs that count
    #[arg(long, default_value_t = 50, value_name = "N")]
    runs: usize,
    /// Also print every kernel, its shape, time and GFLOP/s
    #[arg(long)]
    plan: bool,
    /// With --model on a GPU: time every tile of every product, and print the best as lines for ULTRAMOTION_TILES
    #[arg(long, requires = "model", conflicts_with = "plan")]
    tune: bool,
    /// One JSON object a measurement
    #[arg(long)]
    json: bool,
}

const WARM_UP: usize = 5;
/// Most rows or columns of an assignment.
const MAX_ASSIGNED: usize = 1000;

/// One line of the report.
#[derive(Debug, Serialize)]
struct Measurement {
    model: String,
    input: [usize; 2],
    boxes: Option<usize>,
    device: &'static str,
    threads: usize,
    precision: &'static str,
    runs: usize,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    gflops: Option<f64>,
    peak_memory_mb: Option<f64>,
}

impl Measurement {
    fn new(
        model: impl Into<String>,
        input: [usize; 2],
        device: &Device,
        times_ms: &[f64],
        flops: u64,
    ) -> Self {
        let Quantiles { p50, p90, p99, max } = Quantiles::of(times_ms);
        Measurement {
            model: model.into(),
            input,
            boxes: None,
            device: device.name(),
            threads: device.threads(),
            precision: device.precision(),
            runs: times_ms.len(),
            p50_ms: p50,
            p90_ms: p90,
            p99_ms: p99,
            max_ms: max,
            gflops: (flops > 0 && p50 > 0.0).then(|| flops as f64 / p50 / 1e6),
            peak_memory_mb: peak_memory_mb(),
        }
    }

    fn print(&self, json: bool) -> Result<()> {
        if json {
            say!("{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        let [h, w] = self.input;
        let boxes = self.boxes.map_or(String::new(), |n| format!(", {n} boxes"));
        let speed = self.gflops.map_or(String::new(), |g| format!("  {g:.0} GFLOP/s"));
        say!(
            "{:<20} {w}x{h}{boxes}  p50 {:.2} ms  p90 {:.2}  p99 {:.2}  max {:.2}{speed}  ({} runs, {}, {} threads, {})",
            self.model,
            self.p50_ms,
            self.p90_ms,
            self.p99_ms,
            self.max_ms,
            self.runs,
            self.device,
            self.threads,
            self.precision
        )?;
        Ok(())
    }
}

/// Largest resident size so far, where the system tells.
pub(crate) fn peak_memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

impl Args {
    /// With `--plan` a GPU that is not there will do.
    fn open_device(&self) -> Result<Device> {
        let choice = self.device.choice()?;
        Ok(if self.plan { choice.open_for_plan()? } else { choice.open()? })
    }
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if args.runs == 0 {
        return Err(usage("--runs 0: at least one run counts"));
    }
    match args.model.clone() {
        Some(model) => network(&args, &model)?,
        None => frame(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A part alone: its graph, the inputs that it is run with, the size that it is reported with, and boxes.
struct Alone {
    g: Graph,
    inputs: Vec<HostTensor>,
    size: [usize; 2],
    boxes: Option<usize>,
}

/// What `--model` can name: detectors, both halves of segmenters, an assignment.
fn parts() -> impl Iterator<Item = (String, Architecture)> {
    ARCHITECTURES.into_iter().flat_map(|architecture| {
        let suffixes: &[&str] = match architecture.kind() {
            Kind::Detector => &[""],
            Kind::Segmenter => &[ENCODER, DECODER],
        };
        suffixes.iter().map(move |suffix| (format!("{architecture}{suffix}"), architecture))
    })
}

const ENCODER: &str = "_encoder";
const DECODER: &str = "_decoder";

fn alone(args: &Args, model: &str) -> Result<Alone> {
    match parts().find(|(name, _)| name == model) {
        Some((_, architecture)) => match architecture.kind() {
            Kind::Detector => detector(args, model),
            Kind::Segmenter => segmenter(args, model, architecture.name()),
        },
        None => match assignment_size(model) {
            Some(size) => assignment(model, size),
            None => {
                let names: Vec<String> = parts().map(|(name, _)| name).collect();
                let names = names.join(", ");
                Err(usage(format!("--model '{model}' is not known; {names} and assignment_300x100 are")))
            }
        },
    }
}

fn detector(args: &Args, model: &str) -> Result<Alone> {
    let mut detector = Detector::open(model).map_err(by_fault)?;
    if let Some(side) = args.input {
        detector = detector.with_input_hw([side, side]).map_err(usage)?;
    }
    let [h, w] = detector.network().input_hw();
    let mut g = Graph::new(model);
    let image = g.input("image", DType::F32, [1, h, w, 3])?;
    let found = detector.build(&mut g, image)?;
    g.output("pred_logits", found.pred_logits)?;
    g.output("pred_boxes", found.pred_boxes)?;
    Ok(Alone { g, inputs: vec![noise([1, h, w, 3])], size: [h, w], boxes: None })
}

fn segmenter(args: &Args, model: &str, architecture: &str) -> Result<Alone> {
    let mut segmenter = Segmenter::open(architecture).map_err(by_fault)?;
    if let Some(side) = args.input {
        segmenter = segmenter.with_input_size(side).map_err(usage)?;
    }
    let size = segmenter.network().input_hw();
    let mut g = Graph::new(model);
    if model.ends_with(ENCODER) {
        let [h, w] = size;
        let image = g.input("image", DType::F32, [1, h, w, 3])?;
        let embedding = segmenter.encode_image(&mut g, image)?;
        g.output("embedding", embedding)?;
        return Ok(Alone { g, inputs: vec![noise([1, h, w, 3])], size, boxes: None });
    }
    if !(1..=MAX_OBJECTS).contains(&args.boxes) {
        return Err(usage(format!("--boxes {}: 1 to {MAX_OBJECTS} boxes are decoded", args.boxes)));
    }
    let shape = segmenter.network().embedding_shape();
    let embedding = g.input("embedding", DType::F32, shape.clone())?;
    let prompts = Prompts::boxes(g.input("boxes", DType::F32, [args.boxes, 4])?);
    let masks = segmenter.decode(&mut g, embedding, &prompts, MaskOutput::One)?;
    g.output("masks", masks.low_res_masks)?;
    g.output("iou", masks.iou)?;
    let corner = |i: usize| size[1] as f32 * [0.1, 0.2, 0.5, 0.6][i % 4];
    let boxes: Vec<f32> = (0..4 * args.boxes).map(corner).collect();
    let inputs = vec![noise(shape), HostTensor::f32([args.boxes, 4], boxes)];
    Ok(Alone { g, inputs, size, boxes: Some(args.boxes) })
}

/// One network alone.
fn network(args: &Args, model: &str) -> Result<()> {
    let device = args.open_device()?;
    let Alone { g, inputs, size, boxes } = alone(args, model)?;
    if args.tune {
        return print_tiles(&g, &inputs, &device, args.runs);
    }
    let options = CompileOptions { profile: args.plan, ..CompileOptions::default() };
    let mut program = Program::compile(g, &device, &options)?;
    if !device.runs() {
        print_plan(args, &program.kernel_times())?;
        return Ok(());
    }
    let mut block = vec![0; program.input_bytes()];
    for (entry, value) in program.inputs().iter().zip(&inputs) {
        block[entry.offset..][..entry.bytes()].copy_from_slice(value.bytes());
    }
    let mut result = vec![0; program.output_bytes()];
    let mut times_ms = Vec::with_capacity(args.runs);
    for run in 0..WARM_UP + args.runs {
        let start = Instant::now();
        program.upload(&block)?;
        let event = program.launch()?;
        program.wait(event)?;
        program.download(&mut result)?;
        if run >= WARM_UP {
            times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let kernels = program.kernel_times();
    let flops = kernels.iter().map(|k| k.flops).sum();
    let measurement = Measurement { boxes, ..Measurement::new(model, size, &device, &times_ms, flops) };
    measurement.print(args.json)?;
    print_plan(args, &kernels)
}

fn print_tiles(g: &Graph, inputs: &[HostTensor], device: &Device, runs: usize) -> Result<()> {
    if device.kind() != DeviceKind::Cuda {
        return Err(usage("--tune: tiles are a GPU's; give --device cuda"));
    }
    let inputs: Vec<&HostTensor> = inputs.iter().collect();
    output::answer(format_args!("{}", ultramotion_engine::tune(g, &inputs, device, runs)?))?;
    Ok(())
}

/// Rows and columns of `assignment_300x100`.
fn assignment_size(model: &str) -> Option<[usize; 2]> {
    let (rows, columns) = model.strip_prefix("assignment_")?.split_once('x')?;
    let size = [rows.parse().ok()?, columns.parse().ok()?];
    size.iter().all(|n| (1..=MAX_ASSIGNED).contains(n)).then_some(size)
}

/// Costs of detections and tracks, all of them valid → pairs.
fn assignment(model: &str, size: [usize; 2]) -> Result<Alone> {
    let [rows, columns] = size;
    let mut g = Graph::new(model);
    let cost = g.input("cost", DType::F32, [rows, columns])?;
    let [row_count, column_count] = [rows, columns].map(|n| g.constant(HostTensor::i32([1], [n as i32])));
    let exact = Assign { solver: Solver::Exact, unmatched_cost: f64::INFINITY };
    let pairs = assign(&mut g, exact, cost, row_count, column_count)?;
    g.output("col_of_row", pairs.col_of_row)?;
    g.output("matched", pairs.matched)?;
    Ok(Alone { g, inputs: vec![noise(size)], size, boxes: None })
}

/// Values without structure, the same each time.
fn noise(shape: impl Into<Shape>) -> HostTensor {
    let shape = shape.into();
    let values =
        |i: usize| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    let values = (0..shape.numel()).map(values).collect::<Vec<f32>>();
    HostTensor::f32(shape, values)
}

/// A part of a frame: its name, how its time is found, and its work in floating-point operations.
type Part = (&'static str, fn(&LatencyMs) -> f64, u64);

/// A whole frame, stage by stage.
fn frame(args: &Args) -> Result<()> {
    let device = args.open_device()?;
    let runs = device.runs();
    let mut pipeline = args.pipeline.resolve()?.build_in(&Run::new(args.device.choice()?), device)?;
    if args.plan {
        pipeline.profile_kernels();
    }
    let mut source = open_recorded("phantom")?;
    let mut frame = Frame::default();
    if !runs {
        if let Some(read) = source.read_into(&mut frame) {
            read?;
        }
        pipeline.prepare(&frame.view())?;
        return print_plan(args, &pipeline.kernel_times());
    }
    let mut latencies: Vec<LatencyMs> = Vec::with_capacity(args.runs);
    for run in 0..WARM_UP + args.runs {
        if let Some(read) = source.read_into(&mut frame) {
            read?;
        }
        let packet = pipeline.process(&frame.view())?;
        if run >= WARM_UP {
            latencies.push(packet.latency_ms);
        }
    }
    let kernels = pipeline.kernel_times();
    let flops = kernels.iter().map(|k| k.flops).sum();
    let parts: [Part; 6] = [
        ("upload", |l| l.upload, 0),
        ("detect", |l| l.detect, 0),
        ("match", |l| l.matching, 0),
        ("segment", |l| l.segment, 0),
        ("download", |l| l.download, 0),
        ("frame", |l| l.total, flops),
    ];
    for (name, part, flops) in parts {
        let times: Vec<f64> = latencies.iter().map(part).collect();
        Measurement::new(name, [frame.height, frame.width], pipeline.device(), &times, flops)
            .print(args.json)?;
    }
    print_plan(args, &kernels)
}

fn print_plan(args: &Args, kernels: &[KernelTime]) -> Result<()> {
    if args.plan {
        output::answer(format_args!("{}", kernel_table(kernels)))?;
    }
    Ok(())
}

/// Each step with its branch, launches, shape, work and bytes, and with time and speed once it has run; then the sums by
/// op, and of everything; on a GPU, how often each kernel is started.
pub(crate) fn kernel_table(kernels: &[KernelTime]) -> String {
    let mut table = String::new();
    let mut sums: Vec<(&str, Sum)> = Vec::new();
    let mut all = Sum::default();
    for kernel in kernels {
        let sum = Sum::of(kernel);
        let KernelTime { op, scope, shape, branch, waits, .. } = kernel;
        let after = if waits.is_empty() { String::new() } else { format!("  after {waits:?}") };
        // Writing to a string does not fail.
        let _ = writeln!(table, "{sum}  b{branch} {op:<28} {shape:<22} {scope}{after}");
        all.add(&sum);
        match sums.iter_mut().find(|s| s.0 == op) {
            Some((_, of_op)) => of_op.add(&sum),
            None => sums.push((op, sum)),
        }
    }
    sums.sort_by(|(_, a), (_, b)| {
        (b.us, b.flops, b.bytes).partial_cmp(&(a.us, a.flops, a.bytes)).unwrap_or(Equal)
    });
    for (op, sum) in sums {
        let share = if all.us > 0.0 { format!("{:4.1} %  ", 100.0 * sum.us / all.us) } else { String::new() };
        let _ = writeln!(table, "{sum}  {share}{op}");
    }
    let branches = kernels.iter().map(|k| k.branch + 1).max().unwrap_or(0);
    let _ = writeln!(table, "{all}  in all, {} steps in {branches} branches", kernels.len());
    let mut launches: BTreeMap<&str, usize> = BTreeMap::new();
    kernels.iter().flat_map(|k| &k.kernels).for_each(|name| *launches.entry(name).or_default() += 1);
    for (name, times) in launches {
        let _ = writeln!(table, "{times:4} x  {name}");
    }
    table
}

/// Work of one step, or of several.
#[derive(Default)]
struct Sum {
    us: f64,
    flops: u64,
    bytes: u64,
    launches: usize,
}

impl Sum {
    fn of(kernel: &KernelTime) -> Sum {
        let us = kernel.time.as_secs_f64() * 1e6;
        Sum { us, flops: kernel.flops, bytes: kernel.bytes, launches: kernel.kernels.len() }
    }
    fn add(&mut self, other: &Sum) {
        self.us += other.us;
        self.flops += other.flops;
        self.bytes += other.bytes;
        self.launches += other.launches;
    }
}

impl Display for Sum {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Sum { us, flops, bytes, launches } = self;
        if *us > 0.0 {
            write!(f, "{us:9.1} us {:7.1} GFLOP/s ", *flops as f64 / us / 1e3)?;
        }
        write!(f, "{:9.2} MFLOP {:8.1} kB", *flops as f64 / 1e6, *bytes as f64 / 1e3)?;
        if *launches > 0 { write!(f, " {launches:3} x") } else { Ok(()) }
    }
}
