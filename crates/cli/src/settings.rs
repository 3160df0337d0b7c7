//! Settings from the command line and from a configuration file; the command line wins.
//!
//! The options are those keys of the one table of settings that say so: nothing is listed here.

use std::path::PathBuf;

use anyhow::Result;
use clap::builder::PossibleValue;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use ultramotion::settings::{BuildError, SettingsError};
use ultramotion::{Device, DeviceChoice, Orchestrator, Run, Settings};
use ultramotion_models::zoo::ZooError;
use ultramotion_types::settings::{Key, Kind, Table};

use crate::usage::usage;

/// Models and modes, as options; and the configuration file.
#[derive(Debug, Clone, Default)]
pub(crate) struct PipelineArgs {
    /// The file that `--config` names.
    pub config: Option<PathBuf>,
    /// Keys that were given as options.
    options: toml::Table,
}

/// Settings, and where some of them come from.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub settings: Settings,
    /// The configuration file that some of it comes from.
    pub config: Option<PathBuf>,
}

impl PipelineArgs {
    /// Reads the configuration file, if any, and lets the command line win.
    pub(crate) fn resolve(&self) -> Result<Resolved> {
        let settings =
            Settings::load(self.config.as_deref(), self.options.clone()).map_err(|error| match error {
                SettingsError::Read(error) => usage(format!("{error}; check the path after --config")),
                error => usage(error),
            })?;
        Ok(Resolved { settings, config: self.config.clone() })
    }
}

impl Resolved {
    /// Opens device and models, and builds the only pipeline of a run.
    pub(crate) fn build(&self, choice: DeviceChoice) -> Result<Orchestrator> {
        self.settings.build(choice).map_err(|error| self.by_fault(error))
    }

    /// Opens the models and builds a pipeline of a run.
    pub(crate) fn build_in(&self, run: &Run, device: Device) -> Result<Orchestrator> {
        self.settings.build_in(run, device).map_err(|error| self.by_fault(error))
    }

    /// Whose fault it is that there is no pipeline.
    pub(crate) fn by_fault(&self, error: BuildError) -> anyhow::Error {
        match error {
            BuildError::Device(error) => error.into(),
            BuildError::Model(error) => by_fault(error),
            BuildError::Pipeline(error) => usage(self.with_file(error)),
        }
    }

    /// An error about settings, with where they were read.
    pub(crate) fn with_file(&self, error: impl std::fmt::Display) -> String {
        match &self.config {
            Some(path) => format!("{error}; see the command line and '{}'", path.display()),
            None => error.to_string(),
        }
    }
}

/// A name that is not known, or a model of the other kind, is the command line's fault; a file that is broken is the
/// run's.
pub(crate) fn by_fault(error: ZooError) -> anyhow::Error {
    match error {
        ZooError::Unknown { .. } => usage(error),
        ZooError::WrongKind { wanted, .. } => usage(format!("{error}; give a {wanted} after --{wanted}")),
        ZooError::NotDetector { .. } => usage(error),
        other => other.into(),
    }
}

fn keys() -> impl Iterator<Item = &'static Key> {
    Settings::KEYS.iter().filter(|key| key.option().is_some())
}

fn option(key: &Key) -> Arg {
    let range = key.range.map_or_else(String::new, |range| format!(", {range}"));
    let default = match key.kind {
        Kind::Flag => String::new(),
        _ => Settings::default_text("", key)
            .map_or_else(String::new, |value| format!(" [default: {}]", value.trim_matches('"'))),
    };
    let arg = Arg::new(key.name)
        .long(key.option().unwrap_or_default())
        .help(format!("{}{range}{default}", key.sentence()));
    match key.kind {
        Kind::Flag => arg.action(ArgAction::SetTrue),
        Kind::Count => arg.value_name(key.value_name).value_parser(value_parser!(usize)),
        Kind::Number => arg.value_name(key.value_name).value_parser(value_parser!(f64)),
        Kind::Text | Kind::Structure => arg.value_name(key.value_name),
        Kind::Words(words) => {
            let values = words.iter().map(|(word, meaning)| PossibleValue::new(*word).help(*meaning));
            arg.value_name(key.value_name).value_parser(PossibleValuesParser::new(values))
        }
        Kind::Checked(check) => arg
            .value_name(key.value_name)
            .value_parser(move |word: &str| check(word).map(|()| word.to_owned())),
    }
}

/// What was given for a key.
fn given(key: &Key, matches: &ArgMatches) -> Option<toml::Value> {
    match key.kind {
        Kind::Flag => matches.get_flag(key.name).then_some(toml::Value::Boolean(true)),
        Kind::Count => {
            // More than a file can hold is out of every range.
            let count = matches.get_one::<usize>(key.name)?;
            Some(toml::Value::Integer(i64::try_from(*count).unwrap_or(i64::MAX)))
        }
        Kind::Number => matches.get_one::<f64>(key.name).map(|number| toml::Value::Float(*number)),
        Kind::Text | Kind::Structure | Kind::Words(_) | Kind::Checked(_) => {
            matches.get_one::<String>(key.name).map(|text| toml::Value::String(text.clone()))
        }
    }
}

impl clap::Args for PipelineArgs {
    fn augment_args(command: Command) -> Command {
        let config =
            Arg::new("config").long("config").value_name("FILE").value_parser(value_parser!(PathBuf)).help(
                "TOML file with the same settings and a [tracker] table; options on the command line win",
            );
        command.args(keys().map(option)).arg(config)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for PipelineArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let options = keys().filter_map(|key| Some((key.name.to_owned(), given(key, matches)?))).collect();
        Ok(PipelineArgs { config: matches.get_one("config").cloned(), options })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
