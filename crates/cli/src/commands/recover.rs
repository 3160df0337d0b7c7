//! `ultramotion recover`: recordings of programs that were killed.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use ultramotion_gateway::record::{RecoveredPart, recover};
use ultramotion_media::metaimage::{Recovery, export_mha};

use crate::output::say;
use crate::usage::usage;

/// Complete the recording in a folder that `serve` left when it was killed, and say what was done
///
/// Frames, poses and results are in their files as they come; of what is there a whole header is made, and half a frame or
/// half a line at the end is cut off. A recording that is complete stays as it is. One that is being written is refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ultramotion recover session         completes session/frames.igs.mhd and results.jsonl
  ultramotion run session             computes the same from them again
  ultramotion recover session --mha   all of it in one file as well, session/frames.igs.mha")]
pub(crate) struct Args {
    /// The folder of the recording
    folder: PathBuf,
    /// Copy header and pixels of each part into one .mha file as well, which needs as much room again
    #[arg(long)]
    mha: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    for RecoveredPart { frames: path, recovery, lines } in recover(&args.folder)? {
        let name = path.display();
        match recovery {
            Recovery::Whole { frames } => say!("{name}: {frames} frames, complete already")?,
            Recovery::Completed { frames, cut_bytes: 0 } => say!("{name}: {frames} frames, completed")?,
            Recovery::Completed { frames, cut_bytes } => {
                say!("{name}: {frames} frames, completed; {cut_bytes} bytes of half a frame cut off")?;
            }
            Recovery::Empty => say!("{name}: not a whole frame in it, removed")?,
        }
        match lines {
            Some((lines, 0)) => say!("  results: {lines} lines")?,
            Some((lines, cut_bytes)) => {
                say!(
                    "  results: {lines} lines; {cut_bytes} bytes without a frame, or of half a line, cut off"
                )?;
            }
            None => say!("  results: none")?,
        }
        if args.mha && recovery != Recovery::Empty {
            let one = path.with_extension("mha");
            if one.exists() {
                return Err(usage(format!("--mha: '{}' is there already; move it away", one.display())));
            }
            let bytes = export_mha(&path, &one)?;
            say!("  {}: {:.1} MB", one.display(), bytes as f64 / 1e6)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
