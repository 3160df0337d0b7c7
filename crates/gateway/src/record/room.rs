//! How much room a recording has, said in time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::RecordError;
use crate::config::RecordConfig;

/// How often the system is asked.
const EVERY: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

/// The room on the disk that a folder is on.
#[derive(Debug)]
pub(super) struct Room {
    folder: PathBuf,
    stop_below_mb: u64,
    /// Less than this is worth a word; halved with each.
    word_below_mb: u64,
    free_mb: Option<u64>,
    asked: Option<Instant>,
    /// What was written, and since when.
    written_bytes: u64,
    since: Instant,
}

impl Room {
    pub(super) fn new(config: &RecordConfig) -> Self {
        Room {
            folder: config.folder.clone(),
            stop_below_mb: config.stop_below_mb,
            word_below_mb: config.warn_below_mb,
            free_mb: None,
            asked: None,
            written_bytes: 0,
            since: Instant::now(),
        }
    }

    pub(super) fn free_mb(&self) -> Option<u64> {
        self.free_mb
    }

    /// Notes what was written.
    pub(super) fn note(&mut self, bytes: usize) {
        self.written_bytes += bytes as u64;
    }

    /// Asks from time to time; says so where little is left, and refuses where too little is.
    pub(super) fn check(&mut self) -> Result<(), RecordError> {
        if self.asked.is_some_and(|at| at.elapsed() < EVERY) {
            return Ok(());
        }
        self.asked = Some(Instant::now());
        self.free_mb = fs4::available_space(&self.folder).ok().map(|bytes| bytes / MIB);
        let Some(free_mb) = self.free_mb else { return Ok(()) };
        if free_mb < self.stop_below_mb {
            return Err(RecordError::NoRoom {
                folder: self.folder.clone(),
                free_mb,
                stop_below_mb: self.stop_below_mb,
            });
        }
        if free_mb < self.word_below_mb {
            self.word_below_mb = free_mb / 2;
            let folder = self.folder.display();
            tracing::warn!("{free_mb} MiB are left in '{folder}' for the recording{}", self.lasting());
        }
        Ok(())
    }

    /// For how long it will do at the rate so far.
    fn lasting(&self) -> String {
        let bytes_per_s = self.written_bytes as f64 / self.since.elapsed().as_secs_f64().max(1e-3);
        match self.free_mb {
            Some(free_mb) if self.written_bytes > 0 => {
                let minutes = (free_mb.saturating_sub(self.stop_below_mb) * MIB) as f64 / bytes_per_s / 60.0;
                format!(", which is enough for {minutes:.0} min")
            }
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(warn_below_mb: u64, stop_below_mb: u64) -> Room {
        let folder = std::env::temp_dir();
        Room::new(&RecordConfig { folder, warn_below_mb, stop_below_mb, ..RecordConfig::default() })
    }

    #[test]
    fn little_room_is_said_and_too_little_is_refused() {
        let mut little = room(u64::MAX, 0);
        little.check().unwrap();
        let free_mb = little.free_mb().expect("this system tells");
        // The next word is for half of it.
        assert!((free_mb / 4..free_mb).contains(&little.word_below_mb), "{free_mb}: {little:?}");
        let mut none = room(0, u64::MAX);
        let error = none.check().unwrap_err().to_string();
        assert!(error.contains(" MiB are left in '") && error.ends_with("choose another folder"), "{error}");
        none.check().expect("the system is asked once a second");
    }
}
