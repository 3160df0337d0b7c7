//! Choices of a pipeline, from the command line and from a configuration file; the command line wins.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde::Deserialize;
use ultramotion_engine::Device;
use ultramotion_gateway::config::{
    GatewayConfig, OutputConfig, RecordConfig, ReportConfig, SourceConfig, StreamConfig,
};
use ultramotion_media::MediaError;
use ultramotion_models::dfine::ConfigError;
use ultramotion_models::zoo::{Detector, Segmenter, ZooError};
use ultramotion_pipeline::{Orchestrator, PipelineOptions};
use ultramotion_tracking::assignment::Solver;
use ultramotion_tracking::track::TrackerConfig;
use ultramotion_types::{MatcherMode, Residency};

use crate::usage::usage;

/// The detector of a build with built-in models.
pub(crate) const DEFAULT_DETECTOR: &str = "ultrasound-n";
/// The segmenter of a build with built-in models.
pub(crate) const DEFAULT_SEGMENTER: &str = "ultrasound-sam";

/// Models and modes.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PipelineArgs {
    /// Detector: a name from `ultramotion models list`, or a checkpoint [default: ultrasound-n]
    #[arg(long, value_name = "NAME|PATH")]
    pub detector: Option<String>,
    /// Segmenter: a name from `ultramotion models list`, or a checkpoint [default: ultrasound-sam]
    #[arg(long, value_name = "NAME|PATH")]
    pub segmenter: Option<String>,
    /// How detections and tracks are paired: exact, greedy, or host (exact, on the host) [default: exact]
    #[arg(long, value_name = "MODE")]
    pub matcher: Option<MatcherName>,
    /// Where stages hand over their tensors: device, or host (for comparison) [default: device]
    #[arg(long, value_name = "MODE")]
    pub residency: Option<Residency>,
    /// Most objects in a frame, 1 to 64 [default: 8]
    #[arg(long, value_name = "K")]
    pub max_objects: Option<usize>,
    /// Least score of a detection, 0 to 1 [default: 0.5]
    #[arg(long, value_name = "T")]
    pub score_threshold: Option<f32>,
    /// Frames are unrelated images: nothing is predicted from one to the next
    #[arg(long)]
    pub independent: bool,
    /// TOML file with the same settings and a [tracker] table; options on the command line win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `--matcher`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MatcherName {
    /// Optimal assignment on the device
    Exact,
    /// Column-wise minimum on the device
    Greedy,
    /// Optimal assignment on the host
    Host,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    detector: Option<String>,
    segmenter: Option<String>,
    matcher: Option<MatcherMode>,
    residency: Option<Residency>,
    max_objects: Option<usize>,
    score_threshold: Option<f32>,
    max_overlap_iou: Option<f32>,
    independent: Option<bool>,
    tracker: Option<TrackerConfig>,
    // Of `ultramotion serve`; one file can hold the settings of both.
    source: SourceConfig,
    output: OutputConfig,
    stream: StreamConfig,
    record: RecordConfig,
    report: ReportConfig,
}

/// Everything resolved.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub detector: String,
    pub segmenter: String,
    pub options: PipelineOptions,
    /// Of `ultramotion serve`.
    pub gateway: GatewayConfig,
    /// The configuration file that some of it comes from.
    pub config: Option<PathBuf>,
}

impl PipelineArgs {
    /// Reads the configuration file, if any, and lets the command line win.
    pub(crate) fn resolve(&self) -> Result<Settings> {
        let file = self.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let defaults = PipelineOptions::default();
        let matcher = self.matcher.map(|m| match m {
            MatcherName::Exact => MatcherMode::Exact,
            MatcherName::Greedy => MatcherMode::Greedy,
            MatcherName::Host => MatcherMode::Host,
        });
        let by_solver = match file.tracker.unwrap_or_default().solver {
            Solver::Exact => MatcherMode::Exact,
            Solver::Greedy => MatcherMode::Greedy,
        };
        let mut tracker = file.tracker.unwrap_or_default();
        tracker.independent |= self.independent || file.independent.unwrap_or(false);
        let pick = |argument: &Option<String>, in_file: Option<String>, default: &str| {
            argument.clone().or(in_file).unwrap_or_else(|| default.to_owned())
        };
        let gateway = GatewayConfig {
            source: file.source,
            output: file.output,
            stream: file.stream,
            record: file.record,
            report: file.report,
        };
        Ok(Settings {
            gateway,
            config: self.config.clone(),
            detector: pick(&self.detector, file.detector, DEFAULT_DETECTOR),
            segmenter: pick(&self.segmenter, file.segmenter, DEFAULT_SEGMENTER),
            options: PipelineOptions {
                max_objects: self.max_objects.or(file.max_objects).unwrap_or(defaults.max_objects),
                score_threshold: self
                    .score_threshold
                    .or(file.score_threshold)
                    .unwrap_or(defaults.score_threshold),
                max_overlap_iou: file.max_overlap_iou.unwrap_or(defaults.max_overlap_iou),
                residency: self.residency.or(file.residency).unwrap_or_default(),
                matcher: matcher.or(file.matcher).unwrap_or(by_solver),
                tracker,
            },
        })
    }
}

fn read(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let path = path.to_owned();
        usage(format!(
            "{}; check the path after --config",
            MediaError::Io { action: "read", path, source: error }
        ))
    })?;
    toml::from_str(&text).map_err(|error| {
        let place = error.span().map_or(String::new(), |span| {
            format!(" line {}", text[..span.start.min(text.len())].lines().count().max(1))
        });
        let mut reason = error.message().trim_end().replace('\n', "; ");
        // The parser speaks of its own types.
        for (rust, plain) in [
            ("expected usize", "expected a whole number"),
            ("expected u64", "expected a whole number, 0 or more"),
            ("expected u32", "expected a whole number, 0 or more"),
            ("expected u16", "expected a whole number, 0 or more"),
            ("expected f64", "expected a number"),
            ("expected f32", "expected a number"),
            ("invalid socket address syntax", "this is no address with a port, such as 127.0.0.1:18945"),
        ] {
            reason = reason.replace(rust, plain);
        }
        usage(format!("the configuration '{}'{place}: {reason}", path.display()))
    })
}

impl Settings {
    /// Opens the models and builds the pipeline.
    pub(crate) fn build(&self, device: Device) -> Result<Orchestrator> {
        let detector = Detector::open(&self.detector).map_err(by_fault)?;
        let segmenter = Segmenter::open(&self.segmenter).map_err(by_fault)?;
        for origin in [detector.origin(), segmenter.origin()].into_iter().filter(|o| !o.is_trained()) {
            tracing::warn!("{origin}: its weights are made up, so what it finds means nothing");
        }
        Orchestrator::new(device, detector, segmenter, self.options).map_err(|error| match &self.config {
            Some(path) => usage(format!("{error}; see the command line and '{}'", path.display())),
            None => usage(error),
        })
    }
}

/// A name that is not known, or a model of the other kind, is the command line's fault; a file that is broken is the
/// run's.
pub(crate) fn by_fault(error: ZooError) -> anyhow::Error {
    match error {
        ZooError::Unknown { .. } => usage(error),
        ZooError::WrongKind { wanted, .. } => usage(format!("{error}; give a {wanted} after --{wanted}")),
        ZooError::Detector(ConfigError::NotDfine { .. }) => usage(error),
        other => other.into(),
    }
}
