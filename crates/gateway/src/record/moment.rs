//! A single frame with its results, kept because somebody said so.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::send::Answer;

/// Folder of moments in that of a recording.
const FOLDER: &str = "moments";

/// Why a moment was not kept.
#[derive(Debug, Error)]
pub(crate) enum MomentError {
    /// A file or folder.
    #[error("cannot write '{}': {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    /// The picture.
    #[error("cannot write '{}': {source}", path.display())]
    Picture { path: PathBuf, source: image::ImageError },
}

/// Writes `moments/frame-000012.png`, every pixel as it came, and `moments/frame-000012.json`, its line of results.
/// Returns the picture's path.
pub(crate) fn save_moment(recording: &Path, answer: &Answer) -> Result<PathBuf, MomentError> {
    let folder = recording.join(FOLDER);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| MomentError::Write { path, source }
    };
    fs::create_dir_all(&folder).map_err(failed(&folder))?;
    let Answer { frame, packet, .. } = answer;
    let name = format!("frame-{:06}", packet.frame_id);
    let picture = folder.join(format!("{name}.png"));
    let color = frame.color_type();
    let (width, height) = (u32::from(frame.size[0]), u32::from(frame.size[1]));
    image::save_buffer(&picture, &frame.pixels, width, height, color)
        .map_err(|source| MomentError::Picture { path: picture.clone(), source })?;
    let results = folder.join(format!("{name}.json"));
    // Numbers and texts alone: this cannot fail.
    let mut line = serde_json::to_vec(&**packet).unwrap_or_default();
    line.push(b'\n');
    fs::File::create(&results).and_then(|mut file| file.write_all(&line)).map_err(failed(&results))?;
    Ok(picture)
}
