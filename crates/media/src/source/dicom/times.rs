//! When the frames of a file were taken, from its first (PS3.3 section C.7.6.5).

use dicom_dictionary_std::tags;

use super::elements::DataSet;

/// No longer one is believed.
const MAX_INTERVAL_S: f64 = 3600.0;

/// Times of a file's frames.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Times {
    /// Each frame's, seconds.
    Each(Vec<f64>),
    /// The same interval between all, seconds.
    Every(f64),
    /// The file says nothing.
    Unknown,
}

impl Times {
    /// The frame-time vector, else the frame time, else a rate for playing.
    pub(super) fn of(data_set: &DataSet, frame_count: u64) -> Self {
        let increments_ms = data_set.decimals(tags::FRAME_TIME_VECTOR);
        if frame_count > 1
            && increments_ms.len() as u64 >= frame_count
            && increments_ms[1..].iter().all(|ms| (0.0..=1e3 * MAX_INTERVAL_S).contains(ms))
        {
            // The first increment is that before the first frame, and no part of the film.
            let mut time_ms = 0.0;
            let later = increments_ms[1..].iter().map(|increment_ms| {
                time_ms += increment_ms;
                time_ms / 1e3
            });
            return Self::Each(std::iter::once(0.0).chain(later).collect());
        }
        let interval_s = data_set.decimal(tags::FRAME_TIME).map(|ms| ms / 1e3);
        let rates = [tags::CINE_RATE, tags::RECOMMENDED_DISPLAY_FRAME_RATE]
            .into_iter()
            .map(|tag| data_set.decimal(tag).map(|frames_per_second| 1.0 / frames_per_second));
        let is_interval = |seconds: &f64| *seconds > 0.0 && *seconds <= MAX_INTERVAL_S;
        std::iter::once(interval_s)
            .chain(rates)
            .flatten()
            .find(is_interval)
            .map_or(Self::Unknown, Self::Every)
    }

    /// Seconds from the file's first frame to frame `index`.
    pub(super) fn at(&self, index: u64, nominal_frames_per_second: f64) -> f64 {
        match self {
            Self::Each(times_s) => times_s.get(index as usize).copied().unwrap_or_else(|| {
                // One past the last: as long after it as it is after the one before.
                let [.., before, last] = times_s.as_slice() else { return 0.0 };
                last + (last - before)
            }),
            Self::Every(interval_s) => index as f64 * interval_s,
            Self::Unknown => index as f64 / nominal_frames_per_second,
        }
    }
}
