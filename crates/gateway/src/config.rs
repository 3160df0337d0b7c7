//! Settings of the live gateway: five tables of a TOML file, every key with a default.
//!
//! [`EXAMPLE`] is a whole file with every key at its default and a sentence on each. The tables stand beside the keys
//! of the pipeline (`detector`, `[tracker]`, …), which belong to whoever builds it.
//!
//! ```
//! use ultramotion_gateway::config::SourceConfig;
//!
//! let source: SourceConfig = toml::from_str("connect = 'plus.local:18944'\ndevice = 'Image_Probe'")?;
//! assert_eq!((source.device.as_str(), source.check_crc), ("Image_Probe", true));
//! # Ok::<(), toml::de::Error>(())
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use ultramotion_igtlink::{
    AllowList, AllowListError, BadHeader, ClientConfig, DecoderConfig, DeviceName, ServerConfig,
};

/// A configuration file with every key at its default, and what each means.
pub const EXAMPLE: &str = include_str!("../serve.example.toml");

/// Everything about the live service that is not the pipeline's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Where frames come from.
    pub source: SourceConfig,
    /// Where results go.
    pub output: OutputConfig,
    /// Between the two.
    pub stream: StreamConfig,
    /// Recording.
    pub record: RecordConfig,
    /// Figures.
    pub report: ReportConfig,
}

/// `[source]`: the scanner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceConfig {
    /// Server to connect to, `host:port`. Not read where `listen` is given.
    pub connect: String,
    /// Address to be connected to instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Who may connect to `listen`, as [`AllowList`] reads it; empty for everyone.
    pub allow: String,
    /// IMAGE device to take; empty for the first one that is seen.
    pub device: String,
    /// Whether messages must have the checksum in their header.
    pub check_crc: bool,
    /// Largest message, in MiB.
    pub max_message_mb: u64,
    /// Seconds without a byte after which the connection is made anew; 0 for never.
    pub idle_timeout_s: f64,
    /// Seconds after which a STATUS is sent to the scanner if nothing else was; 0 for never.
    pub keep_alive_s: f64,
    /// Longest pause between attempts to connect, milliseconds.
    pub reconnect_longest_ms: u64,
    /// Values of 16-bit pixels that become black and white; without it such images are not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<[f64; 2]>,
    /// How far a pose may be from a frame in time, milliseconds.
    pub pose_tolerance_ms: f64,
    /// Names of the transforms that lead from the frame that images are placed in to the tracker's, the first one
    /// first. Empty to conclude them from the device's name: [`chain_of_device`](crate::receive::poses::chain_of_device).
    pub image_to_tracker: Vec<String>,
    /// Transforms that do not change, such as a calibration: 16 numbers, by rows, millimetres.
    pub transforms: BTreeMap<String, [f64; 16]>,
}

impl Default for SourceConfig {
    fn default() -> Self {
        SourceConfig {
            connect: "127.0.0.1:18944".into(),
            listen: None,
            allow: String::new(),
            device: String::new(),
            check_crc: true,
            max_message_mb: 64,
            idle_timeout_s: 10.0,
            keep_alive_s: 0.0,
            reconnect_longest_ms: 500,
            window: None,
            pose_tolerance_ms: 100.0,
            image_to_tracker: Vec::new(),
            transforms: BTreeMap::new(),
        }
    }
}

/// `[output]`: who is served what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputConfig {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Who may connect, as [`AllowList`] reads it; empty for everyone who reaches `listen`.
    pub allow: String,
    /// Most clients at a time.
    pub max_clients: usize,
    /// Messages that may wait for each client; a full queue lets its oldest go.
    pub queue: usize,
    /// Seconds after which a client that takes nothing is disconnected; 0 for never.
    pub stall_timeout_s: f64,
    /// Seconds after which a STATUS is sent to a client if nothing else was; 0 for never.
    pub keep_alive_s: f64,
    /// Header version of what is sent, 1 or 2. Version 1 has no metadata.
    pub version: u16,
    /// What the device names of all results begin with.
    pub prefix: String,
    /// IMAGE with the identity of the structure at each pixel.
    pub mask: bool,
    /// POLYDATA with the outlines, in the image's frame.
    pub contours: bool,
    /// POLYDATA with the outlines, in the tracker's frame.
    pub tracker_contours: bool,
    /// STRING with the objects as JSON.
    pub objects: bool,
    /// POINT with the middle of each object.
    pub points: bool,
    /// Passes TRANSFORM, QTRANS, POSITION, TDATA and QTDATA on as they came.
    pub transforms: bool,
    /// STATUS when the scene's or the source's state changes.
    pub status: bool,
}

impl Default for OutputConfig {
    fn default() -> Self {
        OutputConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 18945)),
            allow: String::new(),
            max_clients: 16,
            queue: 64,
            stall_timeout_s: 10.0,
            keep_alive_s: 1.0,
            version: 2,
            prefix: "UM_".into(),
            mask: true,
            contours: true,
            tracker_contours: true,
            objects: true,
            points: true,
            transforms: true,
            status: true,
        }
    }
}

/// `[stream]`: between receiving and computing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// Frames that may wait for the pipeline; a newer one pushes the oldest out.
    pub depth: usize,
    /// Milliseconds since its arrival after which a frame is too old to be worth computing.
    pub max_lag_ms: u64,
}

impl Default for StreamConfig {
    fn default() -> Self {
        StreamConfig { depth: 2, max_lag_ms: 500 }
    }
}

/// `[record]`: keeping what was computed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordConfig {
    /// Folder for `frames.igs.mha` and `results.jsonl`; empty for no recording.
    pub folder: PathBuf,
}

/// `[report]`: figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportConfig {
    /// Seconds between two lines; 0 for none.
    pub every_s: f64,
    /// JSON instead of `key=value`.
    pub json: bool,
    /// Address of a page with the figures for Prometheus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
}

impl Default for ReportConfig {
    fn default() -> Self {
        ReportConfig { every_s: 1.0, json: false, metrics: None }
    }
}

/// A value that the type of its key allows and its meaning does not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Out of range.
    #[error("{key} is {value}, but it must be {range}")]
    Range {
        /// Table and key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is taken.
        range: &'static str,
    },
    /// No allow-list.
    #[error("{key}: {error}")]
    Allow {
        /// Table and key.
        key: &'static str,
        /// What is wrong with it.
        error: AllowListError,
    },
}

/// Longest of the names that follow [`OutputConfig::prefix`].
const LONGEST_SUFFIX: &str = "TrackerContours";

impl GatewayConfig {
    /// Checks every value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let GatewayConfig { source, output, stream, report, .. } = self;
        source.validate()?;
        allow_list("output.allow", &output.allow)?;
        in_range("output.max_clients", output.max_clients, 1, 1024, "1 to 1024")?;
        in_range("output.queue", output.queue, 1, 4096, "1 to 4096")?;
        duration_s("output.stall_timeout_s", output.stall_timeout_s)?;
        duration_s("output.keep_alive_s", output.keep_alive_s)?;
        in_range("output.version", output.version.into(), 1, 2, "1 or 2")?;
        let room = 20 - LONGEST_SUFFIX.len();
        if output.prefix.len() > room || !output.prefix.bytes().all(|b| b.is_ascii_graphic()) {
            let value = format!("'{}'", output.prefix.escape_debug());
            let range = "at most 5 letters, digits and signs: a device name has 20 in all";
            return Err(ConfigError::Range { key: "output.prefix", value, range });
        }
        in_range("stream.depth", stream.depth, 1, 64, "1 to 64")?;
        in_range("stream.max_lag_ms", stream.max_lag_ms as usize, 1, 3_600_000, "1 to 3600000")?;
        duration_s("report.every_s", report.every_s)?;
        Ok(())
    }
}

impl SourceConfig {
    /// A source to connect to, all else by default.
    pub fn connecting_to(address: impl Into<String>) -> Self {
        SourceConfig { connect: address.into(), ..Self::default() }
    }

    /// Checks every value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        allow_list("source.allow", &self.allow)?;
        if DeviceName::new(&self.device).is_err() {
            let value = format!("'{}'", self.device.escape_debug());
            let range = "a device name of at most 20 bytes";
            return Err(ConfigError::Range { key: "source.device", value, range });
        }
        in_range("source.max_message_mb", self.max_message_mb as usize, 1, 4096, "1 to 4096")?;
        duration_s("source.idle_timeout_s", self.idle_timeout_s)?;
        duration_s("source.keep_alive_s", self.keep_alive_s)?;
        let longest = self.reconnect_longest_ms as usize;
        in_range("source.reconnect_longest_ms", longest, 10, 60_000, "10 to 60000")?;
        let ordered = |[low, high]: &[f64; 2]| low.is_finite() && high.is_finite() && low < high;
        if let Some([low, high]) = self.window.filter(|window| !ordered(window)) {
            let value = format!("[{low}, {high}]");
            return Err(ConfigError::Range {
                key: "source.window",
                value,
                range: "two numbers, the lower first",
            });
        }
        if !(0.0..=60_000.0).contains(&self.pose_tolerance_ms) {
            let value = self.pose_tolerance_ms.to_string();
            return Err(ConfigError::Range { key: "source.pose_tolerance_ms", value, range: "0 to 60000" });
        }
        for (name, matrix) in &self.transforms {
            if !matrix.iter().all(|v| v.is_finite()) || matrix[12..] != [0.0, 0.0, 0.0, 1.0] {
                let value = format!("no transform for '{}'", name.escape_debug());
                let range = "16 numbers by rows, the last row 0, 0, 0, 1";
                return Err(ConfigError::Range { key: "source.transforms", value, range });
            }
        }
        Ok(())
    }

    fn decoder(&self) -> DecoderConfig {
        DecoderConfig {
            max_body_bytes: self.max_message_mb << 20,
            check_crc: self.check_crc,
            on_bad_header: BadHeader::Close,
        }
    }

    /// The link's settings where it connects.
    pub(crate) fn client(&self) -> ClientConfig {
        let longest_retry = Duration::from_millis(self.reconnect_longest_ms);
        let defaults = ClientConfig::new(self.connect.clone());
        ClientConfig {
            first_retry: defaults.first_retry.min(longest_retry),
            longest_retry,
            idle_timeout: optional_s(self.idle_timeout_s),
            keep_alive: optional_s(self.keep_alive_s),
            receive_queue: RECEIVE_QUEUE,
            decoder: self.decoder(),
            ..defaults
        }
    }

    /// The link's settings where it listens.
    pub(crate) fn server(&self, address: SocketAddr) -> Result<ServerConfig, ConfigError> {
        Ok(ServerConfig {
            allow: allow_list("source.allow", &self.allow)?,
            max_clients: MAX_SCANNERS,
            idle_timeout: optional_s(self.idle_timeout_s),
            keep_alive: optional_s(self.keep_alive_s),
            receive_queue: RECEIVE_QUEUE,
            decoder: self.decoder(),
            ..ServerConfig::listening_on(address)
        })
    }
}

/// Messages that may wait between the socket and the receiving stage: a burst, not a backlog.
const RECEIVE_QUEUE: usize = 256;
/// Peers that may be connected where the gateway listens for its source: a scanner, a tracker, and one to spare each.
const MAX_SCANNERS: usize = 4;

impl OutputConfig {
    /// The server's settings.
    pub(crate) fn server(&self) -> Result<ServerConfig, ConfigError> {
        Ok(ServerConfig {
            allow: allow_list("output.allow", &self.allow)?,
            max_clients: self.max_clients,
            stall_timeout: optional_s(self.stall_timeout_s),
            keep_alive: optional_s(self.keep_alive_s),
            send_queue: self.queue,
            ..ServerConfig::listening_on(self.listen)
        })
    }
}

fn allow_list(key: &'static str, text: &str) -> Result<AllowList, ConfigError> {
    text.parse().map_err(|error| ConfigError::Allow { key, error })
}

fn in_range(
    key: &'static str,
    value: usize,
    least: usize,
    most: usize,
    range: &'static str,
) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Range { key, value: value.to_string(), range })
}

/// A day is as good as never.
const LONGEST_S: f64 = 86_400.0;

fn duration_s(key: &'static str, seconds: f64) -> Result<(), ConfigError> {
    if (0.0..=LONGEST_S).contains(&seconds) {
        return Ok(());
    }
    Err(ConfigError::Range { key, value: seconds.to_string(), range: "0 to 86400 seconds" })
}

/// A checked number of seconds; 0 means that there is none.
fn optional_s(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example without the keys of the pipeline, which stand first and in `[tracker]`.
    fn gateway_tables(example: &str) -> String {
        let mut ours = false;
        let mut text = String::new();
        for line in example.lines() {
            if line.starts_with('[') {
                ours = line != "[tracker]";
            }
            if ours {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    #[test]
    fn the_example_is_the_default() {
        let config: GatewayConfig = toml::from_str(&gateway_tables(EXAMPLE)).unwrap();
        assert_eq!(config, GatewayConfig::default());
        config.validate().unwrap();
    }

    #[test]
    fn the_example_explains_every_key_there_is() {
        // Keys without a default stand as comments, in a form that is right once the `#` is gone.
        let all = gateway_tables(EXAMPLE).lines().map(uncommented).collect::<Vec<_>>().join("\n");
        let written: toml::Table = toml::from_str(&all).unwrap();
        let config: GatewayConfig = toml::from_str(&all).unwrap();
        config.validate().unwrap();
        // Every option is there now, so serialising names every key.
        let keys = |table: &toml::Table| -> Vec<(String, Vec<String>)> {
            let inner = |v: &toml::Value| v.as_table().unwrap().keys().cloned().collect();
            table.iter().map(|(name, value)| (name.clone(), inner(value))).collect()
        };
        assert_eq!(keys(&written), keys(&toml::Table::try_from(&config).unwrap()));
    }

    fn uncommented(line: &str) -> &str {
        let is_key = |text: &str| {
            let (key, _) = text.split_once(" = ").unwrap_or_default();
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        };
        line.strip_prefix("# ").filter(|text| is_key(text)).unwrap_or(line)
    }

    #[test]
    fn nonsense_is_named_with_its_key() {
        let refused = |text: &str| {
            let config: GatewayConfig = toml::from_str(text).unwrap();
            config.validate().unwrap_err().to_string()
        };
        for (text, key) in [
            ("[stream]\ndepth = 0", "stream.depth"),
            ("[output]\nversion = 3", "output.version"),
            ("[output]\nprefix = 'Ultramotion'", "output.prefix"),
            ("[output]\nallow = 'localhost'", "output.allow"),
            ("[source]\nidle_timeout_s = nan", "source.idle_timeout_s"),
            ("[source]\nidle_timeout_s = -1.0", "source.idle_timeout_s"),
            ("[source]\nwindow = [9.0, 9.0]", "source.window"),
            ("[source]\nwindow = [nan, 9.0]", "source.window"),
            ("[source]\ndevice = 'a name of more than twenty'", "source.device"),
            ("[source]\ntransforms = { A = [1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,1,1] }", "source.transforms"),
        ] {
            assert!(refused(text).starts_with(key), "{}", refused(text));
        }
        let unknown = toml::from_str::<GatewayConfig>("[source]\nconect = 'x'").unwrap_err();
        assert!(unknown.message().contains("conect"), "{unknown}");
    }
}
