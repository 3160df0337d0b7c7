//! Frame after frame at the right time.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use ultramotion_igtlink::{DeviceName, Timestamp};
use ultramotion_media::MediaError;
use ultramotion_media::source::{FrameSource, wait_until};
use ultramotion_types::Frame;

use super::compose::Composer;
use super::config::{Cuts, LOG, Pace, SimulateError, SimulatorConfig, Timestamps};
use super::connections::Connections;
use super::dice::{Dice, Roll};
use super::summary::{FrameCounts, MessageCounts, Summary};

/// Longest sleep, so that a stop is heard.
const NAP: Duration = Duration::from_millis(20);
/// How often key figures go to the log.
const REPORT: Duration = Duration::from_secs(1);

/// Something that happened while playing.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A frame had its turn.
    Frame {
        /// Frames so far.
        made: u64,
        /// Clients now.
        clients: usize,
    },
    /// A frame could not be read, and is passed over.
    Unreadable(&'a MediaError),
}

/// A scanner that listens, and can play one source.
#[derive(Debug)]
pub struct Simulator {
    config: SimulatorConfig,
    image_device: DeviceName,
    connections: Connections,
}

impl Simulator {
    /// Checks the configuration and listens.
    pub fn start(config: SimulatorConfig) -> Result<Self, SimulateError> {
        let image_device = config.check()?;
        let connections = Connections::listen(config.listen, config.queue, config.header_version)?;
        Ok(Self { config, image_device, connections })
    }

    /// The address listened on, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.connections.local_addr()
    }

    /// Plays until the source or the number of frames is at its end, or `stop` says so, which is asked at least every
    /// 20 ms. Then all connections are ended, and the books closed.
    pub fn play(
        mut self,
        source: &mut dyn FrameSource,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Summary, SimulateError> {
        let mut reel = Reel {
            source,
            repeat: self.config.repeat,
            shift_s: 0.0,
            step_s: 0.04,
            last: None,
            unreadable: 0,
        };
        let mut composer = Composer::new(&self.config, self.image_device);
        let mut frames = FrameCounts::default();
        let mut frame = Frame::default();
        let limit = self.config.frames.unwrap_or(u64::MAX);
        // The first frame is read beforehand: what that costs is no delay.
        let mut next = if limit > 0 { reel.next(&mut frame, progress)? } else { None };
        while !stop() && !self.connections.wait_for(self.config.wait_clients, NAP) {}
        let mut clock = Clock::start();
        while let Some(time_s) = next.filter(|_| !stop()) {
            let due_s = match self.config.pace {
                Pace::Source => time_s,
                Pace::Hertz(rate) => frames.made as f64 / rate,
            };
            if !self.take(&mut composer, &frame, time_s, due_s, &mut clock, &mut frames, stop)? {
                break;
            }
            progress(Progress::Frame { made: frames.made, clients: self.connections.count() });
            self.report(&mut clock, &frames);
            next = if frames.made < limit { reel.next(&mut frame, progress)? } else { None };
        }
        frames.unreadable = reel.unreadable;
        let seconds = clock.begin.elapsed().as_secs_f64();
        self.connections.stop();
        let books = self.connections.books();
        Ok(Summary {
            listen: self.connections.local_addr().to_string(),
            source: reel.source.name().to_owned(),
            seconds,
            frames,
            images: books.images,
            poses: books.poses,
            connections: books.connections,
            heard: books.heard,
        })
    }

    /// Waits for a frame's time and sends it. `false` if there was a stop first.
    #[allow(clippy::too_many_arguments)] // one step of `play`, whose state it is
    fn take(
        &mut self,
        composer: &mut Composer,
        frame: &Frame,
        time_s: f64,
        due_s: f64,
        clock: &mut Clock,
        frames: &mut FrameCounts,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, SimulateError> {
        let (number, mischief) = (frames.made, self.config.mischief);
        let dice = Dice { seed: mischief.seed };
        let jitter_s = mischief.jitter_ms / 1e3;
        let (due_s, late) = clock.due(due_s, jitter_s);
        if !clock.sleep_until(due_s + jitter_s * dice.roll(Roll::Jitter, number, 0), stop) {
            return Ok(false);
        }
        frames.made += 1;
        frames.late += u64::from(late);
        if dice.strikes(mischief.drop, Roll::Drop, number, 0) {
            frames.dropped += 1;
        } else {
            let stamp = match self.config.timestamps {
                Timestamps::Clock => clock.stamp(due_s),
                Timestamps::Source => Timestamp::from_secs_f64(clock.first_s(frame, time_s) + time_s),
            };
            let clients = self
                .connections
                .offer(|version, bundle| composer.compose(frame, (number, time_s), stamp, version, bundle))
                .map_err(|problem| SimulateError::Encode {
                    frame_id: frame.frame_id,
                    source_name: frame.source.clone(),
                    problem,
                })?;
            frames.unheard += u64::from(clients == 0);
        }
        let cut = match mischief.cuts {
            None => false,
            Some(Cuts::Share(share)) => dice.strikes(share, Roll::Cut, number, 0),
            Some(Cuts::Every(interval)) => clock.cut_is_due(interval),
        };
        if cut {
            self.connections.cut();
        }
        Ok(true)
    }

    /// Key figures of the last second, for the log.
    fn report(&self, clock: &mut Clock, frames: &FrameCounts) {
        let Some((seconds, made)) = clock.report_is_due(frames.made) else { return };
        let clients = self.connections.count();
        let books = self.connections.books();
        let MessageCounts { offered, sent, bad_crc, halved, skipped, lost } = books.images;
        tracing::info!(
            target: LOG,
            fps = format_args!("{:.1}", made as f64 / seconds),
            clients,
            frames = frames.made,
            dropped = frames.dropped,
            late = frames.late,
            offered,
            sent,
            bad_crc,
            halved,
            skipped,
            lost,
            "simulate"
        );
    }
}

/// The source as an endless film, if it repeats.
struct Reel<'s> {
    source: &'s mut dyn FrameSource,
    repeat: bool,
    /// What is added to the source's times, so that the first frame is at 0 and a repetition follows the last frame.
    shift_s: f64,
    /// Time between the last two frames.
    step_s: f64,
    /// Time of the last frame, in the film's time.
    last: Option<f64>,
    unreadable: u64,
}

impl Reel<'_> {
    /// Reads the next frame and gives its time, which is 0 for the first; `None` at the end.
    fn next(
        &mut self,
        frame: &mut Frame,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<f64>, SimulateError> {
        let mut fresh = self.last.is_none();
        // A source that gives nothing after it was rewound would go round for ever.
        let mut rewound = false;
        loop {
            match self.source.read_into(frame) {
                Some(Ok(())) => return Ok(Some(self.place(frame.timestamp_s, fresh))),
                Some(Err(error)) => {
                    self.unreadable += 1;
                    progress(Progress::Unreadable(&error));
                }
                None if self.repeat && !rewound => {
                    self.source.rewind()?;
                    (rewound, fresh) = (true, true);
                }
                None => return Ok(None),
            }
        }
    }

    /// The film's time of a frame; the first after the beginning or a rewind follows its predecessor by a step.
    fn place(&mut self, timestamp_s: f64, fresh: bool) -> f64 {
        let last = self.last.unwrap_or(-self.step_s);
        if fresh {
            self.shift_s = last + self.step_s - timestamp_s;
        }
        let time_s = timestamp_s + self.shift_s;
        // Times that do not go on are a recorder's fault, and no reason to stop.
        let time_s = if time_s.is_finite() && time_s >= last { time_s } else { last.max(0.0) };
        if time_s > last {
            self.step_s = time_s - last;
        }
        *self.last.insert(time_s)
    }
}

/// The time that a film has played.
struct Clock {
    begin: Instant,
    begin_on_the_wall: SystemTime,
    /// How much the film has been held up.
    held_up_s: f64,
    last_due_s: f64,
    first_s: Option<f64>,
    last_cut: Instant,
    last_report: (Instant, u64),
}

impl Clock {
    fn start() -> Self {
        let begin = Instant::now();
        Self {
            begin,
            begin_on_the_wall: SystemTime::now(),
            held_up_s: 0.0,
            last_due_s: 0.0,
            first_s: None,
            last_cut: begin,
            last_report: (begin, 0),
        }
    }

    fn now_s(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// When a frame is due that the film has at `film_s`, and whether it is late: by more than the time between two
    /// frames and the jitter. Then it is due now, and all others as much later, as a scanner that cannot keep up makes
    /// fewer frames and not older ones.
    fn due(&mut self, film_s: f64, jitter_s: f64) -> (f64, bool) {
        let (due_s, now_s) = (film_s + self.held_up_s, self.now_s());
        let step_s = (due_s - self.last_due_s).max(1e-3);
        let late = now_s > due_s + step_s + jitter_s;
        if late {
            self.held_up_s += now_s - due_s;
        }
        self.last_due_s = if late { now_s } else { due_s };
        (self.last_due_s, late)
    }

    /// `false` if there was a stop first.
    fn sleep_until(&self, due_s: f64, stop: &dyn Fn() -> bool) -> bool {
        wait_until(self.begin + Duration::try_from_secs_f64(due_s).unwrap_or_default(), stop)
    }

    fn stamp(&self, due_s: f64) -> Timestamp {
        (self.begin_on_the_wall + Duration::try_from_secs_f64(due_s).unwrap_or_default()).into()
    }

    /// The source's time of the first frame.
    fn first_s(&mut self, frame: &Frame, time_s: f64) -> f64 {
        *self.first_s.get_or_insert(frame.timestamp_s - time_s)
    }

    fn cut_is_due(&mut self, interval: Duration) -> bool {
        let due = self.last_cut.elapsed() >= interval;
        if due {
            self.last_cut = Instant::now();
        }
        due
    }

    /// Seconds and frames since the last report, if that is a while ago.
    fn report_is_due(&mut self, made: u64) -> Option<(f64, u64)> {
        let (then, made_then) = self.last_report;
        if then.elapsed() < REPORT {
            return None;
        }
        self.last_report = (Instant::now(), made);
        Some((then.elapsed().as_secs_f64(), made - made_then))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames at these times, none of which can be read where a time is negative.
    #[derive(Debug)]
    struct Times(Vec<f64>, usize);

    impl FrameSource for Times {
        fn name(&self) -> &str {
            "times"
        }
        fn description(&self) -> String {
            "frames of a test".into()
        }
        fn frame_count_hint(&self) -> Option<u64> {
            None
        }
        fn read_into(&mut self, frame: &mut Frame) -> Option<Result<(), MediaError>> {
            let time_s = *self.0.get(self.1)?;
            self.1 += 1;
            if time_s < 0.0 {
                return Some(Err(MediaError::UnknownKind { path: "nowhere".into(), kinds: "none".into() }));
            }
            *frame = Frame { timestamp_s: time_s, ..Frame::grey8(2, 2, vec![0; 4]) };
            Some(Ok(()))
        }
        fn rewind(&mut self) -> Result<(), MediaError> {
            self.1 = 0;
            Ok(())
        }
        fn set_nominal_frames_per_second(&mut self, _frames_per_second: f64) {}
    }

    fn film(times: &[f64], repeat: bool, frames: usize) -> (Vec<f64>, u64) {
        let mut source = Times(times.to_vec(), 0);
        let mut reel =
            Reel { source: &mut source, repeat, shift_s: 0.0, step_s: 0.04, last: None, unreadable: 0 };
        let mut frame = Frame::default();
        let mut film = Vec::new();
        while film.len() < frames {
            let Some(time_s) = reel.next(&mut frame, &mut |_| {}).expect("a source that rewinds") else {
                break;
            };
            film.push((time_s * 1e3).round() / 1e3);
        }
        (film, reel.unreadable)
    }

    #[test]
    fn a_film_begins_at_zero_and_goes_on() {
        assert_eq!(film(&[233.0, 233.5, 234.25], false, 9), (vec![0.0, 0.5, 1.25], 0));
        assert_eq!(film(&[233.0, 233.5, 234.25], true, 6), (vec![0.0, 0.5, 1.25, 2.0, 2.5, 3.25], 0));
        assert_eq!(film(&[5.0, -1.0, 5.1, 3.0, f64::NAN, 5.3], false, 9), (vec![0.0, 0.1, 0.1, 0.1, 0.3], 1));
        assert_eq!(film(&[], true, 9), (vec![], 0), "an empty source is no endless one");
        assert_eq!(film(&[-1.0], true, 9).0, Vec::<f64>::new());
    }

    #[test]
    fn who_is_late_is_held_up_and_not_hurried() {
        let mut clock = Clock::start();
        clock.begin -= Duration::from_secs(100);
        let (due_s, late) = clock.due(0.5, 0.0);
        assert!(late && due_s >= 100.0);
        let (next_s, late) = clock.due(10.5, 0.0);
        assert!(!late && (next_s - due_s - 10.0).abs() < 1e-9, "{next_s}");
    }
}
