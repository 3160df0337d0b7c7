//! Starts the program, and makes what it reads.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;
use ultramotion_media::metaimage::{Layout, SequenceWriter};
use ultramotion_models::checkpoint::{self, Checkpoint, StoredPrecision, WeightTensor};
use ultramotion_models::zoo::{Detector, Segmenter};
use ultramotion_types::Frame;

/// Side of the networks' input.
const SIDE: usize = 64;

/// Checkpoints and recordings that all tests read.
pub struct Shelf {
    folder: TempDir,
}

/// Made once.
pub fn shelf() -> &'static Shelf {
    static SHELF: OnceLock<Shelf> = OnceLock::new();
    SHELF.get_or_init(|| {
        let shelf = Shelf { folder: tempfile::tempdir().unwrap() };
        let detector = Detector::open("dfine_n").unwrap();
        let mut checkpoint = Checkpoint::new(detector.weights().clone());
        checkpoint.input_size = Some([SIDE, SIDE]);
        checkpoint.classes = Some((0..detector.labels().len()).map(|i| format!("structure-{i}")).collect());
        checkpoint::save(shelf.detector(), &checkpoint, StoredPrecision::F32).unwrap();
        let name = "decoder.enc_score_head.weight";
        let tensor = checkpoint.weights.get(name).unwrap().clone();
        let mut values = tensor.to_f32();
        values[7] = f32::NAN;
        checkpoint.weights.insert(name, WeightTensor::from_f32(name, tensor.shape(), &values).unwrap());
        checkpoint::save(shelf.detector_with_nan(), &checkpoint, StoredPrecision::F32).unwrap();
        let segmenter = Segmenter::open("mobile_sam").unwrap();
        let mut checkpoint = Checkpoint::new(segmenter.weights().clone());
        checkpoint.input_size = Some([SIDE, SIDE]);
        checkpoint::save(shelf.segmenter(), &checkpoint, StoredPrecision::F16).unwrap();
        write_sequence(&shelf.sequence(), 12);
        shelf
    })
}

impl Shelf {
    pub fn detector(&self) -> PathBuf {
        self.folder.path().join("detector.safetensors")
    }
    pub fn detector_with_nan(&self) -> PathBuf {
        self.folder.path().join("nan.safetensors")
    }
    pub fn segmenter(&self) -> PathBuf {
        self.folder.path().join("segmenter.safetensors")
    }
    /// Twelve grey frames.
    pub fn sequence(&self) -> PathBuf {
        self.folder.path().join("twelve.igs.mha")
    }
}

pub const WIDTH: usize = 60;
pub const HEIGHT: usize = 44;

/// A picture that drifts.
pub fn pixels(frame: usize, width: usize, height: usize) -> Vec<u8> {
    let value = |x: usize, y: usize| (x * 5 + y * 9 + (x * y) / 7) as u8;
    (0..height * width).map(|i| value(i % width + frame, i / width)).collect()
}

/// The time of a frame of [`write_sequence`]: unlike any that a program would make up.
pub fn time_s(frame: usize) -> f64 {
    233.25 + 0.0625 * frame as f64
}

pub fn write_sequence(path: &Path, frames: usize) {
    let mut writer =
        SequenceWriter::create(path, Layout { compressed: false, ..Layout::grey8(WIDTH, HEIGHT) }).unwrap();
    for i in 0..frames {
        let frame = Frame::grey8(WIDTH, HEIGHT, pixels(i, WIDTH, HEIGHT));
        writer.write(&Frame { timestamp_s: time_s(i), ..frame }).unwrap();
    }
    writer.finish().unwrap();
}

/// The program, in a folder of its own, without what the surroundings would change.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ultramotion"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    for variable in ["ULTRAMOTION_LOG", "ULTRAMOTION_DEBUG", "ULTRAMOTION_SIMD"] {
        command.env_remove(variable);
    }
    // Errors are one sentence even where backtraces are on.
    command.env("RUST_BACKTRACE", "1").env("COLUMNS", "100");
    command
}

/// The same program, started by a shell that does something before: `exec "$0" "$@"` is the program.
#[cfg(unix)]
pub fn by_shell(program: &Command, script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
    for (key, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(key, value),
            None => shell.env_remove(key),
        };
    }
    shell.current_dir(program.get_current_dir().unwrap());
    shell
}

/// The signal of a terminal that is closed; SIGTERM where the tests run under `nohup`, since programs that they start are to
/// ignore the former then.
#[cfg(unix)]
pub fn hang_up() -> &'static str {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0");
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap_or(0);
    // SIGHUP is the first of all.
    if ignored & 1 == 1 { "TERM" } else { "HUP" }
}

/// What a run of the program left.
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Finished {
            code: output.status.code().expect("not killed by a signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub fn start(folder: &Path, arguments: &[&str]) -> Finished {
    let finished: Finished = command(folder, arguments).output().unwrap().into();
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    finished
}

/// The arguments of `ultramotion run` with the small networks, on the CPU.
pub fn run_arguments<'a>(source: &'a str, more: &[&'a str]) -> Vec<String> {
    let shelf = shelf();
    let (detector, segmenter) = (shelf.detector(), shelf.segmenter());
    let mut arguments: Vec<String> = ["run", source, "--device", "cpu"].map(String::from).to_vec();
    if !more.contains(&"--threads") {
        // The tests themselves run beside each other.
        arguments.extend(["--threads".into(), "1".into()]);
    }
    if !more.contains(&"--detector") {
        arguments.extend(["--detector".into(), detector.display().to_string()]);
    }
    if !more.contains(&"--segmenter") {
        arguments.extend(["--segmenter".into(), segmenter.display().to_string()]);
    }
    if !more.contains(&"--score-threshold") && !more.contains(&"--config") {
        arguments.extend(["--score-threshold".into(), "0.05".into(), "--max-objects".into(), "4".into()]);
    }
    arguments.extend(more.iter().map(|&s| s.to_owned()));
    arguments
}

/// `ultramotion run`.
pub fn run(folder: &Path, source: &str, more: &[&str]) -> Finished {
    let arguments = run_arguments(source, more);
    start(folder, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A run that must go well; its results.
pub fn results_of(folder: &Path, source: &str, more: &[&str]) -> Vec<Value> {
    let finished = run(folder, source, more);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    results(&folder.join("out"))
}

/// All lines of a `results.jsonl`; each must be whole.
pub fn results(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("results.jsonl")).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The error that the program ended with: one line, with the test's own paths replaced.
pub fn error_of(finished: &Finished, folder: &Path) -> String {
    let errors: Vec<&str> = finished.stderr.lines().filter(|l| !l.contains(" WARN ")).collect();
    let text = errors.join("\n");
    let text = text.replace(&folder.display().to_string(), "FOLDER");
    text.replace(&shelf().folder.path().display().to_string(), "SHELF")
}
