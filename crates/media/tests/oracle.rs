//! Other people's readers as judges: what ITK, pynrrd and Pillow read of a file, we read of it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use ultramotion_media::source::{frames, open};
use ultramotion_types::Frame;

/// Grey values by which a decoder of JPEG may differ from another.
const JPEG_SLACK: u8 = 2;

#[test]
fn files_are_read_as_itk_pynrrd_and_pillow_read_them() {
    let folder = TempDir::new().unwrap();
    let python = std::env::var("ULTRAMOTION_ORACLES").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle.py");
    let output = Command::new(&python).arg(script).arg(folder.path()).output();
    let Ok(output) = output else {
        return println!("skipped: there is no {python}");
    };
    print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let Ok(text) = std::fs::read_to_string(folder.path().join("expected.json")) else {
        assert!(String::from_utf8_lossy(&output.stderr).contains("ModuleNotFoundError"), "the script failed");
        return println!("skipped: {python} has no NumPy");
    };
    let files: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    for file in &files {
        let name = file["file"].as_str().unwrap();
        if let Err(problem) = compare(&folder, name, file) {
            wrong.push(format!("{name}: {problem}"));
        }
    }
    println!("{} files compared", files.len());
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), files.len(), wrong.join("\n"));
}

fn compare(folder: &TempDir, name: &str, expected: &Value) -> Result<(), String> {
    let source = open(&folder.path().join(name)).map_err(|error| error.to_string())?;
    let read: Result<Vec<Frame>, _> = frames(source).collect();
    let read = read.map_err(|error| error.to_string())?;
    let wanted = expected["frames"].as_array().unwrap();
    if read.len() != wanted.len() {
        return Err(format!("{} frames instead of {}", read.len(), wanted.len()));
    }
    let slack = if name.ends_with(".jpg") { JPEG_SLACK } else { 0 };
    for (number, (frame, wanted)) in read.iter().zip(wanted).enumerate() {
        let size = [&expected["width"], &expected["height"]].map(|side| side.as_u64().unwrap() as usize);
        if [frame.width, frame.height] != size {
            return Err(format!("{}x{} instead of {size:?}", frame.width, frame.height));
        }
        let spacing =
            expected["spacing"].as_array().map(|s| s.iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>());
        if let Some(spacing) = spacing
            && frame.spacing_mm.is_none_or(|found| found[..] != spacing[..])
        {
            return Err(format!("spacing {:?} instead of {spacing:?}", frame.spacing_mm));
        }
        let mut wanted: Vec<u8> =
            wanted.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u8).collect();
        // A grey picture may be kept in three channels.
        if wanted.len() * 3 == frame.pixels.len() {
            wanted = wanted.into_iter().flat_map(|v| [v; 3]).collect();
        }
        let worst = frame.pixels.iter().zip(&wanted).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
        if frame.pixels.len() != wanted.len() || worst > slack {
            return Err(format!(
                "frame {number}: {} values that differ by up to {worst}, beside {}",
                frame.pixels.len(),
                wanted.len()
            ));
        }
    }
    Ok(())
}
