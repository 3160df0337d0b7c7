//! Settings of the live gateway: five tables of a TOML file, every key with a default.
//!
//! The tables stand beside the keys of the pipeline (`detector`, `[tracker]`, …), which belong to whoever builds it.
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

use thiserror::Error;
use ultramotion_igtlink::{
    AllowList, AllowListError, BadHeader, ClientConfig, DecoderConfig, DeviceName, ServerConfig,
};
use ultramotion_types::settings::{Range, SettingError, Table};

ultramotion_types::settings! {
    /// Everything about the live service that is not the pipeline's
    pub struct GatewayConfig in "" {}
    tables {
        /// Where frames come from.
        pub source: SourceConfig;
        /// Where results go.
        pub output: OutputConfig;
        /// Between the two.
        pub stream: StreamConfig;
        /// Recording.
        pub record: RecordConfig;
        /// Figures.
        pub report: ReportConfig;
        /// The page.
        pub page: PageConfig;
    }
}

ultramotion_types::settings! {
    /// Where frames come from: a scanner that speaks OpenIGTLink, such as PlusServer
    pub struct SourceConfig in "source" {
        /// The server to connect to, host:port. A lost connection is made again, for ever.
        pub connect: String = "127.0.0.1:18944".into();
        /// Or wait here for the scanner to connect; `connect` is not read then.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub listen: Option<SocketAddr> = None, such as "\"127.0.0.1:18944\"";
        /// Who may connect to `listen`: addresses and networks with commas between; empty for everyone who reaches it.
        pub allow: String = String::new();
        /// Device name of the IMAGE messages to take; empty for the first one seen on a connection. PlusServer calls it
        /// Image_ and the name of the frame that it is placed in, such as Image_Reference. With `listen`, frames are those of
        /// one connection until it ends, or for 2 s sends none and another does.
        pub device: String = String::new();
        /// Header version of what is sent to the scanner, 2 or 1. PlusServer answers in the version that it has heard,
        /// and only version 2 has the metadata that says which tools were lost; 1 is for scanners older than 2017.
        pub version: u16 = 2, in Range::within(1.0, 2.0);
        /// Names that PlusServer is asked for on connecting, by CLIENTINFO, in place of what its configuration lists:
        /// images as name and frame, such as Image_Reference, transforms as ProbeToTracker. Empty: nothing is asked for.
        pub ask_for: Vec<String> = Vec::new();
        /// Asks for TDATA on connecting (STT_TDATA), which PlusServer sends to nobody else.
        pub request_tdata: bool = true;
        /// A pose that is exactly the identity, without metadata that says whether its tool was seen, is what PlusServer
        /// sends for a tool that was lost: it is not used. true: it is a pose like any other.
        pub identity_is_valid: bool = false;
        /// Messages whose checksum is wrong are rejected and counted. Some senders leave it 0: then say false.
        pub check_crc: bool = true;
        /// A larger message ends the connection, MiB. The default is room for 8192x8192 pixels in colour.
        pub max_message_mb: u64 = 200, in Range::within(1.0, 4096.0);
        /// The connection is made anew, or with `listen` the peer let go, when no whole message came for so long, in
        /// seconds; 0: never.
        pub idle_timeout_s: f64 = 10.0, in Range::SECONDS;
        /// A STATUS goes to the scanner when nothing else was sent to it for so long, in seconds; 0: never.
        pub keep_alive_s: f64 = 0.0, in Range::SECONDS;
        /// Attempts to connect begin 50 ms apart and slow down to this, in milliseconds.
        pub reconnect_longest_ms: u64 = 500, in Range::within(10.0, 60_000.0);
        /// Pixels may be 8-bit grey or RGB. 16-bit grey is taken with the values here that become black and white.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub window: Option<[f64; 2]> = None, such as "[0.0, 4095.0]";
        /// Poses are interpolated at the frame's timestamp when one on each side is this near, or else the nearest is
        /// taken if it is, in milliseconds.
        pub pose_tolerance_ms: f64 = 100.0, in Range::within(0.0, 60_000.0);
        /// Names of the transforms that lead from the frame that IMAGE messages are placed in to the tracker's, the
        /// first one first: TRANSFORM devices or tools of TDATA, or keys of `transforms`, with their whole names or the
        /// first 20 characters. Empty: by PlusServer's device names, that is `["ImageToProbe", "ProbeToTracker"]` for Image or Image_Image, `["ProbeToTracker"]` for
        /// Image_Probe, none for Image_Tracker, and so on.
        pub image_to_tracker: Vec<String> = Vec::new();
        /// Transforms that do not change, such as a probe's calibration, by rows, in millimetres:
        /// `{ ImageToProbe = [0.1, 0, 0, -32, 0, 0.1, 0, 0, 0, 0, 0.1, 0, 0, 0, 0, 1] }`.
        pub transforms: BTreeMap<String, [f64; 16]> = BTreeMap::new();
    }
}

ultramotion_types::settings! {
    /// Where results go: a server that 3D Slicer and others connect to
    pub struct OutputConfig in "output" {
        /// Address to listen on. 0.0.0.0:18945 opens it to the network.
        pub listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 18945));
        /// Who may connect: addresses and networks, such as "192.168.1.0/24, ::1"; empty for everyone who reaches it.
        pub allow: String = String::new();
        /// Most clients at a time.
        pub max_clients: usize = 16, in Range::within(1.0, 1024.0);
        /// Most of them from one address.
        pub max_clients_per_address: usize = 8, in Range::within(1.0, 1024.0);
        /// Messages that may wait for a client. A full queue lets its oldest go, so a slow client holds up nobody.
        pub queue: usize = 64, in Range::within(1.0, 4096.0);
        /// A client that takes nothing for so long is disconnected, in seconds; 0: never.
        pub stall_timeout_s: f64 = 10.0, in Range::SECONDS;
        /// A STATUS goes to a client when nothing else was sent to it for so long, in seconds; 0: never.
        pub keep_alive_s: f64 = 1.0, in Range::SECONDS;
        /// Header version, 2 or 1. Peers older than 2017 know version 1 alone, which has no metadata. 0: version 2, but 1 for
        /// clients of an address whose clients twice in a row left right after our first message in version 2.
        pub version: u16 = 2, in Range::within(0.0, 2.0);
        /// What the device names of all results begin with, at most 5 characters.
        pub prefix: String = "UM_".into();
        /// UM_Mask, IMAGE: pixels are the structure's identity, 1 to 255 and round again, 0 outside; placed like the
        /// source.
        pub mask: bool = true;
        /// UM_Contours, POLYDATA: outlines in the frame that the source's images are placed in, with identity, class
        /// and score of each.
        pub contours: bool = true;
        /// UM_TrackerContours, POLYDATA: the same in the tracker's frame, while the poses for it are there.
        pub tracker_contours: bool = false;
        /// Most outlines of each kind a second; 0: those of every frame. The library that 3D Slicer reads them with keeps
        /// some memory of each for ever, about 5 kB.
        pub contours_per_s: f64 = 10.0, in Range::within(0.0, 1000.0);
        /// UM_Objects, STRING: the objects as JSON.
        pub objects: bool = true;
        /// UM_Points, POINT: the middle of each object.
        pub points: bool = true;
        /// The scanner's images and poses, passed on under names that begin with the prefix, such as UM_Image_Reference:
        /// one connector is enough then, and beside one to the scanner itself no name is there twice.
        pub source: bool = false;
        /// TRANSFORM and TDATA from the scanner, passed on as they came.
        pub transforms: bool = true;
        /// QTRANS, POSITION and QTDATA, which 3D Slicer does not read, passed on as TRANSFORM and TDATA; false: not passed
        /// on.
        pub convert_poses: bool = true;
        /// UM_Status, STATUS: when the scene or the connection to the scanner changes.
        pub status: bool = true;
    }
}

ultramotion_types::settings! {
    /// In between: the newest frame wins
    #[derive(Copy)]
    pub struct StreamConfig in "stream" {
        /// Frames that may wait for the pipeline; a newer one pushes the oldest out, which is counted.
        pub depth: usize = 1, in Range::within(1.0, 64.0);
        /// A frame that is older is dropped and counted, in milliseconds: by its own timestamp, compared with that of the
        /// frame that came fastest, or from its arrival where the scanner's clock does not go as ours does. So is one that
        /// was older than this when the connection to the scanner was made.
        pub max_lag_ms: u64 = 500, in Range::within(1.0, 3_600_000.0);
        /// Memory that the programs for several sizes of frames may have together, weights included, MiB: beyond it those go
        /// that were not used for longest. A new size is compiled beside the stream; its frames are dropped until then, and
        /// counted (`compiling`).
        pub max_program_mb: u64 = 512, in Range::within(1.0, 1_048_576.0);
    }
}

ultramotion_types::settings! {
    /// Recording what was computed, to be run again with `ultramotion run FOLDER`
    pub struct RecordConfig in "record" {
        /// A folder for frames.igs.mhd with frames.raw (frames and poses) and results.jsonl; empty for no recording.
        pub folder: PathBuf = PathBuf::new();
        /// frames.igs.mhd is made anew so often, in seconds: it has the frames up to then. What a killed program left is
        /// completed by `ultramotion recover FOLDER`.
        pub header_every_s: f64 = 5.0, in Range::within(0.1, 3600.0);
        /// Each new header, and the frames in it, are forced to the disk itself (fsync), so that a loss of power costs what
        /// came after. false: when they get there is left to the system, which serves slow disks better.
        pub fsync: bool = true;
        /// Less room on the disk is said in the log, and again each time that half of it is gone, MiB; 0: never.
        pub warn_below_mb: u64 = 4096;
        /// With less room the recording ends, complete, and the stream goes on, MiB. 0: when a write fails, which ends it
        /// in order too, but leaves no room to others.
        pub stop_below_mb: u64 = 256;
    }
}

ultramotion_types::settings! {
    /// Figures
    pub struct ReportConfig in "report" {
        /// Seconds between two lines on standard output; 0: none.
        pub every_s: f64 = 1.0, in Range::SECONDS;
        /// true: each line is a JSON object with all figures. false: a few, for people.
        pub json: bool = false;
        /// Of before there was a page, which has figures for Prometheus at /metrics: it listens here too.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub metrics: Option<SocketAddr> = None, such as "\"127.0.0.1:9464\"";
        /// The same as page.hosts, which it is added to.
        pub hosts: Vec<String> = Vec::new();
    }
}

ultramotion_types::settings! {
    /// The live page, with figures for Prometheus at /metrics, for browsers on this machine
    pub struct PageConfig in "page" {
        /// Where it is served, or "off".
        pub listen: String = "127.0.0.1:8080".into();
        /// Names of this machine by which it may be asked for, beside localhost and addresses.
        pub hosts: Vec<String> = Vec::new();
        /// Serves it beyond this machine, where `listen` says so. It shows everything that the scanner shows, and takes what
        /// is pointed at, over plain HTTP: have a TLS proxy before it, or a network of its own. Needs `token`.
        pub network: bool = false;
        /// What a browser must bring once, as http://ADDRESS/?token=…, and Prometheus as a bearer token: 16 to 256 letters,
        /// digits, '-' and '_'. Empty: nothing is asked for.
        pub token: String = String::new();
    }
}

/// What `page.listen` says for no page.
const NO_PAGE: &str = "off";

/// A value that the type of its key allows and its meaning does not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Out of range.
    #[error(transparent)]
    Range(#[from] SettingError),
    /// No allow-list.
    #[error("{key}: {error}")]
    Allow {
        /// Table and key.
        key: &'static str,
        /// What is wrong with it.
        error: AllowListError,
    },
}

impl ConfigError {
    fn range(key: &str, value: String, range: &str) -> Self {
        SettingError { key: key.to_owned(), value, range: range.to_owned() }.into()
    }
}

/// Longest of the names that follow [`OutputConfig::prefix`].
const LONGEST_SUFFIX: &str = "TrackerContours";

impl GatewayConfig {
    /// Checks every value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check()?;
        self.source.validate()?;
        allow_list("output.allow", &self.output.allow)?;
        self.page.validate()?;
        let prefix = &self.output.prefix;
        let room = 20 - LONGEST_SUFFIX.len();
        if prefix.len() > room || !prefix.bytes().all(|b| b.is_ascii_graphic()) {
            let value = format!("'{}'", prefix.escape_debug());
            let range = "at most 5 letters, digits and signs: a device name has 20 in all";
            return Err(ConfigError::range("output.prefix", value, range));
        }
        Ok(())
    }
}

impl RecordConfig {
    /// Whether there is to be a recording.
    pub fn is_wanted(&self) -> bool {
        !self.folder.as_os_str().is_empty()
    }
}

impl PageConfig {
    /// No page at all.
    pub fn off() -> Self {
        PageConfig { listen: NO_PAGE.into(), ..Self::default() }
    }

    /// Where it is served.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }

    /// Checks every value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check()?;
        let quoted = |text: &str| format!("'{}'", text.escape_debug());
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !self.token.is_empty()
            && (!(16..=256).contains(&self.token.len()) || !self.token.bytes().all(is_token))
        {
            let range = "16 to 256 letters, digits, '-' and '_', or empty";
            return Err(ConfigError::range("page.token", format!("{} bytes", self.token.len()), range));
        }
        let Some(address) = self.address() else {
            return if self.listen == NO_PAGE {
                Ok(())
            } else {
                Err(ConfigError::range(
                    "page.listen",
                    quoted(&self.listen),
                    "ADDRESS:PORT, as 127.0.0.1:8080, or \"off\"",
                ))
            };
        };
        let is_guarded = self.network && !self.token.is_empty();
        if !address.ip().is_loopback() && !is_guarded {
            let range = "an address of this machine alone, as 127.0.0.1:8080, unless page.network = true and page.token is set";
            return Err(ConfigError::range("page.listen", quoted(&self.listen), range));
        }
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
        self.check()?;
        allow_list("source.allow", &self.allow)?;
        let port = self.connect.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        let has_port = port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
        if self.listen.is_none() && !has_port {
            let value = format!("'{}'", self.connect.escape_debug());
            return Err(ConfigError::range("source.connect", value, "host:port, as plus.local:18944"));
        }
        if DeviceName::new(&self.device).is_err() {
            let value = format!("'{}'", self.device.escape_debug());
            return Err(ConfigError::range("source.device", value, "a device name of at most 20 bytes"));
        }
        let is_name =
            |name: &String| (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if self.ask_for.len() > 32 || !self.ask_for.iter().all(is_name) {
            let range =
                "at most 32 names of 1 to 64 letters, digits and signs, as Image_Reference or ProbeToTracker";
            return Err(ConfigError::range("source.ask_for", format!("{:?}", self.ask_for), range));
        }
        let ordered = |[low, high]: &[f64; 2]| low.is_finite() && high.is_finite() && low < high;
        if let Some([low, high]) = self.window.filter(|window| !ordered(window)) {
            let value = format!("[{low}, {high}]");
            return Err(ConfigError::range("source.window", value, "two numbers, the lower first"));
        }
        for (name, matrix) in &self.transforms {
            if !matrix.iter().all(|v| v.is_finite()) || matrix[12..] != [0.0, 0.0, 0.0, 1.0] {
                let value = format!("no transform for '{}'", name.escape_debug());
                let range = "16 numbers by rows, the last row 0, 0, 0, 1";
                return Err(ConfigError::range("source.transforms", value, range));
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
            max_clients_per_address: MAX_SCANNERS / 2,
            displace_silent: true,
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
/// Peers that may be connected where the gateway listens for its source: a scanner, a tracker, and some to spare. Half of
/// them may be of one address.
const MAX_SCANNERS: usize = 8;

/// Messages a second that a client of the results may send: questions and commands. More wait at its end.
const CLIENT_MESSAGES_PER_S: u32 = 100;
/// Largest of them. A larger one ends the connection.
const CLIENT_MESSAGE_BYTES: u64 = 64 << 10;

impl OutputConfig {
    /// The server's settings.
    pub(crate) fn server(&self) -> Result<ServerConfig, ConfigError> {
        Ok(ServerConfig {
            allow: allow_list("output.allow", &self.allow)?,
            max_clients: self.max_clients,
            max_clients_per_address: self.max_clients_per_address,
            max_messages_per_s: Some(CLIENT_MESSAGES_PER_S),
            decoder: DecoderConfig { max_body_bytes: CLIENT_MESSAGE_BYTES, ..DecoderConfig::default() },
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

/// A checked number of seconds; 0 means that there is none.
fn optional_s(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use ultramotion_types::MAX_SIDE_PX;

    use super::*;

    #[test]
    fn nonsense_is_named_with_its_key() {
        let refused = |text: &str| {
            let config: GatewayConfig = toml::from_str(text).unwrap();
            config.validate().unwrap_err().to_string()
        };
        for (text, key) in [
            ("[stream]\ndepth = 0", "stream.depth"),
            ("[output]\nversion = 3", "output.version"),
            ("[output]\ncontours_per_s = -1.0", "output.contours_per_s"),
            ("[source]\nversion = 3", "source.version"),
            ("[source]\nconnect = 'plus.local'", "source.connect"),
            ("[source]\nconnect = 'plus.local:'", "source.connect"),
            ("[source]\nconnect = ':18944'", "source.connect"),
            ("[source]\nconnect = 'plus.local:0'", "source.connect"),
            ("[source]\nask_for = ['ProbeToTracker', '']", "source.ask_for"),
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
        let largest = MAX_SIDE_PX * MAX_SIDE_PX * 3 + 4096;
        assert!(SourceConfig::default().decoder().max_body_bytes >= largest as u64, "as documented");
        let unknown = toml::from_str::<GatewayConfig>("[source]\nconect = 'x'").unwrap_err();
        assert!(unknown.message().contains("conect"), "{unknown}");
    }
}
