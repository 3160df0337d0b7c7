//! Videos by the installed ffmpeg, which also makes them here. Without it there is one sentence.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use ultramotion_media::source::{FrameSource, Video, frames, open};
use ultramotion_types::{Frame, PixelFormat};

/// Runs ffmpeg, or says why the test does nothing.
fn made(arguments: &[&str], path: &Path) -> bool {
    let made = Command::new("ffmpeg").args(["-v", "error", "-y"]).args(arguments).arg(path).status();
    match made {
        Ok(status) => {
            assert!(status.success(), "ffmpeg {arguments:?}");
            true
        }
        Err(error) => {
            println!("skipped: there is no ffmpeg ({error})");
            false
        }
    }
}

fn read(path: &Path) -> Vec<Frame> {
    frames(open(path).unwrap()).map(Result::unwrap).collect()
}

/// Frame k is of one grey, 20 k.
const STEPS: [&str; 4] = ["-f", "lavfi", "-i", "color=black:s=64x48:r=25:d=0.4,format=gray,geq=lum='20*N'"];

#[test]
fn frames_come_in_order_with_their_times() {
    let folder = TempDir::new().unwrap();
    for (name, codec, colour) in [
        ("a.avi", &["-c:v", "rawvideo", "-pix_fmt", "gray"][..], PixelFormat::Grey8),
        ("a.mkv", &["-c:v", "ffv1", "-pix_fmt", "gray"], PixelFormat::Grey8),
        ("a.mp4", &["-c:v", "mpeg4", "-q:v", "2", "-pix_fmt", "yuv420p"], PixelFormat::Rgb8),
        (
            "no ending, 'quotes' and -dashes",
            &["-f", "avi", "-c:v", "rawvideo", "-pix_fmt", "gray"],
            PixelFormat::Grey8,
        ),
    ] {
        let path = folder.path().join(name);
        if !made(&[&STEPS[..], codec].concat(), &path) {
            return;
        }
        let frames = read(&path);
        assert_eq!(frames.len(), 10, "{name}");
        for (number, frame) in frames.iter().enumerate() {
            assert_eq!((frame.width, frame.height, frame.pixel_format), (64, 48, colour), "{name}");
            assert_eq!(frame.frame_id, number as u64);
            assert!((frame.timestamp_s - 0.04 * number as f64).abs() < 2e-3, "{name}: {}", frame.timestamp_s);
            let middle = frame.pixels[frame.pixels.len() / 2];
            assert!(usize::from(middle).abs_diff(20 * number) <= 2, "{name}: {middle} for {}", 20 * number);
        }
        assert_eq!(open(&path).unwrap().description(), "video, decoded by ffmpeg");
    }
}

#[test]
fn a_variable_rate_is_kept_and_a_rotation_obeyed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.mkv");
    let variable = [
        "-vf",
        "settb=1/1000,setpts=N*N*10",
        "-fps_mode",
        "passthrough",
        "-enc_time_base",
        "1/1000",
        "-c:v",
        "ffv1",
    ];
    if !made(&[&STEPS[..], &variable].concat(), &path) {
        return;
    }
    let times: Vec<f64> = read(&path).iter().map(|frame| frame.timestamp_s).collect();
    for (number, time) in times.iter().enumerate() {
        assert!((time - 0.01 * (number * number) as f64).abs() < 2e-3, "{times:?}");
    }
    let upright = folder.path().join("b.mp4");
    made(&[&STEPS[..], &["-c:v", "mpeg4"]].concat(), &upright);
    let turned = folder.path().join("c.mp4");
    let input = upright.to_string_lossy();
    // From version 6 on the first is refused or does nothing, before it the second is not known.
    let by_metadata = ["-i", &input, "-c", "copy", "-metadata:s:v:0", "rotate=90"];
    let by_option = ["-display_rotation", "90", "-i", &input, "-c", "copy"];
    let is_turned = |arguments: &[&str]| {
        let ran = Command::new("ffmpeg").args(["-v", "error", "-y"]).args(arguments).arg(&turned).status();
        ran.is_ok_and(|status| status.success())
            && (read(&turned)[0].width, read(&turned)[0].height) == (48, 64)
    };
    assert!(is_turned(&by_metadata) || is_turned(&by_option));
}

#[test]
fn it_can_be_played_again_and_left_in_the_middle() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.avi");
    if !made(&[&STEPS[..], &["-c:v", "rawvideo", "-pix_fmt", "gray"]].concat(), &path) {
        return;
    }
    let mut video = Video::open(&path).unwrap();
    let mut frame = Frame::default();
    for _ in 0..3 {
        video.read_into(&mut frame).unwrap().unwrap();
    }
    assert_eq!(frame.frame_id, 2);
    video.rewind().unwrap();
    video.read_into(&mut frame).unwrap().unwrap();
    assert_eq!((frame.frame_id, frame.pixels[0]), (0, 0));
    let rest = std::iter::from_fn(|| video.read_into(&mut frame)).filter(Result::is_ok).count();
    assert_eq!(rest, 9);
    assert!(video.read_into(&mut frame).is_none(), "it stays at its end");
}

#[test]
fn what_is_no_video_is_told_with_ffmpegs_words() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let whole = folder.path().join("a.avi");
    if !made(&[&STEPS[..], &["-c:v", "rawvideo", "-pix_fmt", "gray"]].concat(), &whole) {
        return;
    }
    let sound = folder.path().join("sound.mkv");
    made(&["-f", "lavfi", "-i", "sine=d=0.2", "-c:a", "pcm_s16le"], &sound);
    for path in [file("text.mp4", b"this is no video at all"), file("empty.mp4", b""), sound] {
        let refused = open(&path).unwrap_err().to_string();
        assert!(refused.contains("cannot be decoded by ffmpeg: "), "{refused}");
        assert!(!refused.contains('\n') && refused.len() < 500, "{refused}");
    }
    // Cut anywhere, it gives what is whole, or a sentence.
    let bytes = std::fs::read(&whole).unwrap();
    for length in (0..bytes.len()).step_by(5 << 10) {
        if let Ok(source) = open(&file("cut.avi", &bytes[..length])) {
            assert!(frames(source).filter(Result::is_ok).count() <= 10);
        }
    }
}
