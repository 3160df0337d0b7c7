//! Every choice of a run or of the live service: one struct, one file.
//!
//! Keys, defaults, ranges and sentences come from the tables that declare them ([`Table`]); this module reads the file,
//! lets options win over it, and explains all of it.
//!
//! ```
//! use ultramotion::Settings;
//!
//! let options = [("max_objects".to_owned(), 4.into())].into_iter().collect();
//! let settings = Settings::load(None, options)?;
//! assert_eq!((settings.max_objects, settings.detector.as_str()), (4, "ultrasound-n"));
//! # Ok::<(), ultramotion::SettingsError>(())
//! ```

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use thiserror::Error;
use ultramotion_engine::CudaError;
use ultramotion_engine::Device;
use ultramotion_gateway::config::{
    GatewayConfig, OutputConfig, PageConfig, RecordConfig, ReportConfig, SourceConfig, StreamConfig,
};
use ultramotion_media::MediaError;
use ultramotion_models::zoo::{Detector, Segmenter, ZooError};
use ultramotion_pipeline::{DeviceChoice, MAX_OBJECTS, Orchestrator, PipelineError, PipelineOptions, Run};
use ultramotion_tracking::assignment::Solver;
use ultramotion_tracking::follow::FollowConfig;
use ultramotion_tracking::track::TrackerConfig;
use ultramotion_types::settings::{Key, Range, SettingError, Table, TableInfo};
use ultramotion_types::{MatcherMode, Residency};

ultramotion_types::settings! {
    /// What is computed
    pub struct Settings in "" {
        /// Detector: a name from `ultramotion models list`, or a checkpoint
        pub detector: String = "ultrasound-n".into(), option "NAME|PATH";
        /// Segmenter: a name from `ultramotion models list`, or a checkpoint
        pub segmenter: String = "ultrasound-sam".into(), option "NAME|PATH";
        /// How detections and tracks are paired: exact, greedy, or host (exact, on the host)
        pub matcher: MatcherMode = MatcherMode::Exact, option "MODE";
        /// Where stages hand over their tensors: device, or host (for comparison)
        pub residency: Residency = Residency::Device, option "MODE";
        /// Most objects in a frame
        pub max_objects: usize = PipelineOptions::default().max_objects,
            in Range::within(1.0, MAX_OBJECTS as f64), option "K";
        /// Most objects that somebody can point at, 0 to 8: 8 for `serve` where nothing is said, else none but those of --prompt
        #[serde(skip_serializing_if = "Option::is_none")]
        pub max_prompts: Option<usize> = None, such as "8";
        /// Least score of a detection
        pub score_threshold: f32 = PipelineOptions::default().score_threshold, in Range::SHARE, option "T";
        /// A detection that overlaps a better one by more than this IoU is the same structure; 1 keeps all
        pub max_overlap_iou: f32 = PipelineOptions::default().max_overlap_iou, in Range::SHARE;
        /// Frames are unrelated images: nothing is predicted from one to the next
        pub independent: bool = false, option "YES";
    }
    tables {
        /// Tracking.
        pub tracker: TrackerConfig;
        /// What was pointed at.
        pub prompts: FollowConfig;
        /// Of the live service: where frames come from.
        pub source: SourceConfig;
        /// Of the live service: where results go.
        pub output: OutputConfig;
        /// Of the live service: between the two.
        pub stream: StreamConfig;
        /// Of the live service: recording.
        pub record: RecordConfig;
        /// Of the live service: figures.
        pub report: ReportConfig;
        /// Of the live service: the page.
        pub page: PageConfig;
    }
}

/// Why settings cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] MediaError),
    /// The file, or an option, is not what a key takes.
    #[error("{place}: {reason}")]
    Form {
        /// The file and line, or the options.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A value is out of its range.
    #[error("{error}{}", see(.path.as_deref()))]
    Range {
        /// Which, and what it must be.
        error: SettingError,
        /// The file, if one was read.
        path: Option<PathBuf>,
    },
}

/// Why a pipeline cannot be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The requested device cannot be had.
    #[error(transparent)]
    Device(#[from] CudaError),
    /// A model cannot be had.
    #[error(transparent)]
    Model(#[from] ZooError),
    /// Models and options do not make a pipeline.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

fn see(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!("; see the command line and '{}'", path.display()))
}

impl Settings {
    /// The defaults, over which the file wins, over which the options win. Options are keys as in the file.
    pub fn load(file: Option<&Path>, options: toml::Table) -> Result<Settings, SettingsError> {
        let mut matcher_given = options.contains_key("matcher");
        let mut settings = Settings::default();
        if let Some(path) = file {
            let text = content(path)?;
            settings = toml::from_str(&text).map_err(|error| in_file(path, &text, &error))?;
            matcher_given |= toml::from_str::<toml::Table>(&text).is_ok_and(|t| t.contains_key("matcher"));
        }
        if !options.is_empty() {
            let wrong = |error: &dyn ToString| SettingsError::Form {
                place: "the options".into(),
                reason: plain(&error.to_string()),
            };
            let mut all = toml::Table::try_from(&settings).map_err(|error| wrong(&error))?;
            overlay(&mut all, options);
            settings = all.try_into().map_err(|error: toml::de::Error| wrong(&error.message()))?;
        }
        if !matcher_given && settings.tracker.solver == Solver::Greedy {
            settings.matcher = MatcherMode::Greedy;
        }
        settings.tracker.independent |= settings.independent;
        match settings.check() {
            Ok(()) => Ok(settings),
            Err(error) => Err(SettingsError::Range { error, path: file.map(Path::to_owned) }),
        }
    }

    /// What the pipeline is told.
    pub fn pipeline_options(&self) -> PipelineOptions {
        PipelineOptions {
            max_objects: self.max_objects,
            max_prompts: self.max_prompts.unwrap_or(0),
            score_threshold: self.score_threshold,
            max_overlap_iou: self.max_overlap_iou,
            residency: self.residency,
            matcher: self.matcher,
            tracker: self.tracker,
            follow: self.prompts,
        }
    }

    /// What the live service is told.
    pub fn gateway(&self) -> GatewayConfig {
        GatewayConfig {
            source: self.source.clone(),
            output: self.output.clone(),
            stream: self.stream,
            record: self.record.clone(),
            report: self.report.clone(),
            page: self.page.clone(),
        }
    }

    /// Opens device and models, and builds the only pipeline of a run.
    pub fn build(&self, choice: DeviceChoice) -> Result<Orchestrator, BuildError> {
        let run = Run::new(choice);
        self.build_in(&run, run.open()?)
    }

    /// Opens the models and builds a pipeline of a run that may have several, one after another.
    pub fn build_in(&self, run: &Run, device: Device) -> Result<Orchestrator, BuildError> {
        let detector = Detector::open(&self.detector)?;
        let segmenter = Segmenter::open(&self.segmenter)?;
        for origin in [detector.origin(), segmenter.origin()].into_iter().filter(|o| !o.is_trained()) {
            tracing::warn!("{origin}: its weights are made up, so what it finds means nothing");
        }
        Ok(Orchestrator::in_run(run, device, detector, segmenter, self.pipeline_options())?)
    }

    /// The default of a key, as a file has it; `None` for a key without one. `table` is empty for keys that stand first.
    pub fn default_text(table: &str, key: &Key) -> Option<String> {
        // By way of the text: there a number has no more digits than it needs. Made once, for options are asked for at
        // every start.
        static DEFAULTS: LazyLock<String> =
            LazyLock::new(|| toml::to_string(&Settings::default()).unwrap_or_default());
        let mut current = "";
        for line in DEFAULTS.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                current = name;
            } else if let Some((name, value)) = line.split_once(" = ").filter(|_| current == table)
                && name == key.name
            {
                return Some(value.to_owned());
            }
        }
        // A table of the user's own, which is empty.
        key.example.is_none().then(|| "{}".to_owned())
    }

    /// A configuration file with every key at its default, and what each means.
    pub fn explained() -> String {
        let mut text = "# ultramotion serve --config FILE\n#\n# Every key with its default; leave out what you do not change. A key \
             that is not known is an error.\n# Research software, not a medical device.\n"
            .to_owned();
        for TableInfo { name, about, keys } in Settings::tables().into_iter().filter(|t| !t.keys.is_empty()) {
            let first = about.split(|line| line.is_empty()).next().unwrap_or_default();
            let first: Vec<&str> = first.iter().map(|line| line.trim()).collect();
            text.push('\n');
            wrap(&format!("--- {} ---", first.join(" ").trim_end_matches('.')), &mut text);
            // Writing to a string does not fail.
            if !name.is_empty() {
                let _ = writeln!(text, "[{name}]");
            }
            for key in keys {
                let range = key.range.map_or_else(String::new, |range| format!(" ({range})"));
                let sentence = format!("{}{range}.", key.sentence().trim_end_matches('.'));
                wrap(&sentence, &mut text);
                let _ = match Settings::default_text(name, key) {
                    Some(value) => writeln!(text, "{} = {value}", key.name),
                    None => writeln!(text, "# {} = {}", key.name, key.example.unwrap_or_default()),
                };
            }
        }
        text
    }
}

/// Lays options over a table, key by key in the tables inside.
fn overlay(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => overlay(under, over),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

/// A comment in lines of at most 110 characters.
fn wrap(sentence: &str, text: &mut String) {
    let mut line = "#".to_owned();
    for word in sentence.split_whitespace() {
        if line.len() + 1 + word.len() > 110 {
            text.push_str(&line);
            text.push('\n');
            line = "#".into();
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

/// Longer files are no configuration: every key with its sentence takes a hundredth of this.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The text of a file, or of a pipe.
fn content(path: &Path) -> Result<String, SettingsError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(|source| MediaError::Io { action: "read", path: path.to_owned(), source })?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let place = format!("the configuration '{}'", path.display());
        let reason = "it is longer than 1 MiB, which no configuration is; check the path".into();
        return Err(SettingsError::Form { place, reason });
    }
    Ok(text)
}

fn in_file(path: &Path, text: &str, error: &toml::de::Error) -> SettingsError {
    let place = error.span().map_or(String::new(), |span| {
        format!(" line {}", text[..span.start.min(text.len())].lines().count().max(1))
    });
    let place = format!("the configuration '{}'{place}", path.display());
    SettingsError::Form { place, reason: plain(error.message()) }
}

/// The parser's words without its types.
fn plain(message: &str) -> String {
    let mut reason = message.trim_end().replace('\n', "; ");
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
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With keys that stand as comments because they have no default.
    fn uncommented(text: &str) -> String {
        let is_key = |text: &str| {
            let (key, _) = text.split_once(" = ").unwrap_or_default();
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        };
        let line =
            |line: &'_ str| line.strip_prefix("# ").filter(|text| is_key(text)).unwrap_or(line).to_owned();
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_is_explained_is_the_default_and_names_every_key() {
        let text = Settings::explained();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), Settings::default(), "{text}");
        let all: toml::Table = toml::from_str(&uncommented(&text)).unwrap();
        for TableInfo { name, keys, .. } in Settings::tables() {
            let table = name
                .split('.')
                .filter(|part| !part.is_empty())
                .fold(&all, |t, part| t[part].as_table().unwrap());
            for key in keys {
                assert!(table.contains_key(key.name), "{name} {}", key.name);
                assert!(!key.sentence().is_empty(), "{name} {}", key.name);
            }
        }
        let all: Settings = all.try_into().unwrap();
        all.check().unwrap();
        all.gateway().validate().unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    }

    /// The README's block of defaults has them, and every key of its tables.
    #[test]
    fn the_readme_has_the_defaults() {
        let readme = include_str!("../../../README.md");
        let block = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let written: Settings = toml::from_str(block).unwrap();
        let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!(close(written.tracker.nominal_dt_s, TrackerConfig::default().nominal_dt_s));
        let tracker =
            TrackerConfig { nominal_dt_s: TrackerConfig::default().nominal_dt_s, ..written.tracker };
        assert_eq!(Settings { tracker, ..written }, Settings::default());
        let table: toml::Table = toml::from_str(block).unwrap();
        let named = |table: &toml::Table, keys: &[Key]| {
            keys.iter().filter(|key| !table.contains_key(key.name)).map(|key| key.name).collect::<Vec<_>>()
        };
        // It has no default, and stands as a comment.
        assert_eq!(named(&table, Settings::KEYS), ["max_prompts"]);
        // These two are the same as keys above, and the text says so.
        assert_eq!(
            named(table["tracker"].as_table().unwrap(), TrackerConfig::KEYS),
            ["solver", "independent"]
        );
    }

    #[test]
    fn options_win_over_the_file_and_the_file_over_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.toml");
        std::fs::write(&path, "max_objects = 3\nscore_threshold = 0.25\n[tracker]\nsolver = 'greedy'\n")
            .unwrap();
        let options: toml::Table = toml::from_str("max_objects = 5\n[output]\nversion = 1").unwrap();
        let settings = Settings::load(Some(&path), options).unwrap();
        assert_eq!((settings.max_objects, settings.score_threshold, settings.output.version), (5, 0.25, 1));
        assert_eq!(settings.matcher, MatcherMode::Greedy, "by the solver, as no matcher is given");
        let exact: toml::Table = toml::from_str("matcher = 'exact'").unwrap();
        assert_eq!(Settings::load(Some(&path), exact).unwrap().matcher, MatcherMode::Exact);
        let wrong =
            |text: &str| Settings::load(Some(&path), toml::from_str(text).unwrap()).unwrap_err().to_string();
        let suffix = format!("; see the command line and '{}'", path.display());
        assert_eq!(wrong("max_objects = 65"), format!("max-objects is 65, but it must be 1 to 64{suffix}"));
        assert_eq!(
            wrong("[tracker.weights]\nbbox = -1.0"),
            format!("tracker.weights.bbox is -1, but it must be 0 or more, and finite{suffix}")
        );
        assert!(wrong("colour = 'red'").starts_with("the options: unknown field `colour`"));
    }
}
