//! Files for other tools, from `run` and from `export`.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::program::{Finished, HEIGHT, WIDTH, error_of, pixels, results, run, shelf, start, write_sequence};

/// Whether a program is there and starts.
fn is_there(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Without it there are no videos to test.
fn has_ffmpeg() -> bool {
    is_there("ffmpeg", &["-version"])
}

/// The options for all that can be made here, into a folder.
fn all_into(folder: &str) -> Vec<String> {
    let mut options = vec![
        ("coco", "coco.json"),
        ("mot", "tracks.txt"),
        ("csv", "objects.csv"),
        ("masks", "masks"),
        ("seg", "found.seg.nrrd"),
    ];
    if has_ffmpeg() {
        options.push(("video", "found.mp4"));
    }
    options.iter().flat_map(|(option, name)| [format!("--{option}"), format!("{folder}/{name}")]).collect()
}

/// Names and contents of all files of a folder and its folders.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let inside = contents(&path).into_iter();
            all.extend(inside.map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            all.push((name, std::fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

fn export(folder: &Path, arguments: &[&str]) -> Finished {
    start(folder, &[&["export"], arguments].concat())
}

/// A folder with a run of a few frames of the phantom, and what it exported to `during`.
fn phantom() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("during")).unwrap();
    let options = all_into("during");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let finished = run(folder.path(), "phantom:3", &[&["--frames", "4"], options.as_slice()].concat());
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(finished.stdout.contains("\nseg          during/found.seg.nrrd\n"), "{}", finished.stdout);
    folder
}

#[test]
fn what_is_made_later_is_what_a_run_makes() {
    let folder = phantom();
    let later = folder.path().join("later");
    std::fs::create_dir(&later).unwrap();
    let options = all_into("later");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    // A second time replaces what is there.
    for _ in 0..2 {
        let arguments = [&["out/results.jsonl", "--source", "phantom:3"], options.as_slice()].concat();
        let finished = export(folder.path(), &arguments);
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
        assert!(
            finished.stdout.starts_with("results      out/results.jsonl: 4 frames"),
            "{}",
            finished.stdout
        );
    }
    if !has_ffmpeg() {
        println!("skipped for videos: there is no ffmpeg here");
    }
    let (during, later) = (contents(&folder.path().join("during")), contents(&later));
    assert_eq!(during.len(), 10 + usize::from(has_ffmpeg()));
    for ((name, expected), (other, got)) in during.iter().zip(&later) {
        assert!(name == other && expected == got, "{name} and {other} differ");
    }
    assert_eq!(during.len(), later.len());
}

#[test]
fn tables_and_masks_are_those_of_the_results() {
    let folder = phantom();
    let lines = results(&folder.path().join("out"));
    let objects: Vec<(&Value, &Value)> = lines
        .iter()
        .flat_map(|line| line["objects"].as_array().unwrap().iter().map(move |object| (line, object)))
        .collect();
    assert!(!objects.is_empty());
    let read = |name: &str| std::fs::read_to_string(folder.path().join("during").join(name)).unwrap();
    let (table, tracks, labels) = (read("objects.csv"), read("tracks.txt"), read("masks/labels.csv"));
    assert_eq!(table.lines().count(), objects.len() + 1);
    assert_eq!(labels.lines().count(), objects.len() + 1);
    let names: Vec<String> = read("tracks.labels.txt").lines().map(str::to_owned).collect();
    let rows = table.lines().skip(1).zip(tracks.lines()).zip(labels.lines().skip(1));
    for ((line, object), ((row, track), label)) in objects.iter().zip(rows) {
        let row: Vec<&str> = row.split(',').collect();
        let number = |at: usize| row[at].parse::<f64>().unwrap();
        assert_eq!(
            (number(0), number(1)),
            (line["frame_id"].as_f64().unwrap(), line["timestamp"].as_f64().unwrap())
        );
        assert_eq!(
            (row[2], row[3]),
            (object["label"].as_str().unwrap(), object["track_id"].to_string().as_str())
        );
        let found: Vec<f64> =
            object["box_xyxy"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert_eq!([number(6), number(7), number(8), number(9)], *found);
        if number(10) > 0.0 {
            // The phantom's pixels are square.
            let pixel_mm = (number(11) / number(10)).sqrt();
            assert!((pixel_mm - 0.07).abs() < 0.01, "{pixel_mm}");
            assert!((number(12) * pixel_mm - number(14)).abs() < 0.01 && number(12) >= number(13));
            assert!(number(16) > 0.0 && number(16) < 512.0 * pixel_mm);
        }
        let track: Vec<&str> = track.split(',').collect();
        assert_eq!(track[0].parse::<u64>().unwrap(), line["frame_id"].as_u64().unwrap() + 1);
        assert_eq!(track[1], row[3]);
        assert_eq!(names[track[7].parse::<usize>().unwrap() - 1], row[2]);
        let file = format!("{:06}.png", line["frame_id"].as_u64().unwrap());
        assert!(label.starts_with(&file) && label.ends_with(&format!(",{},{}", row[3], row[2])), "{label}");
    }
}

#[test]
fn python_opens_them_and_finds_the_same() {
    let python = std::env::var("ULTRAMOTION_PYTHON").unwrap_or_else(|_| "python3".into());
    if !is_there(&python, &["-c", "import nrrd, pycocotools"]) {
        println!(
            "skipped: '{python}' has no pycocotools and pynrrd; name one that has with ULTRAMOTION_PYTHON"
        );
        return;
    }
    let folder = phantom();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/exports.py");
    let mut command = Command::new(&python);
    command.current_dir(folder.path()).arg(script);
    command.args(["out/results.jsonl", "during/coco.json", "during/found.seg.nrrd"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_video_shows_the_overlays() {
    if !has_ffmpeg() {
        println!("skipped: there is no ffmpeg here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    // Sides are odd, and the folder's name is none that ffmpeg may take for something else.
    let (width, height) = (161, 121);
    for i in 0..12 {
        let path = images.join(format!("{i}.png"));
        // A bar that moves.
        let grey: Vec<u8> =
            (0..width * height).map(|at| if (at % width) / 10 == i { 200 } else { 60 }).collect();
        image::save_buffer(path, &grey, width as u32, height as u32, image::ColorType::L8).unwrap();
    }
    let odd = folder.path().join("a:b 'c'");
    std::fs::create_dir(&odd).unwrap();
    let finished = run(folder.path(), "images", &["--overlay", "--video", "a:b 'c'/-v.mp4"]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-nostdin", "-i"]).arg(format!("file:{}", odd.join("-v.mp4").display()));
    let output = ffmpeg.args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let (padded_width, padded_height) = (width + 1, height + 1);
    let pictures: Vec<&[u8]> = output.stdout.chunks(padded_width * padded_height * 3).collect();
    assert_eq!(pictures.len(), 12);
    let overlay =
        |i: usize| image::open(folder.path().join(format!("out/overlays/{i:06}.png"))).unwrap().into_rgb8();
    let overlays: Vec<image::RgbImage> = (0..12).map(overlay).collect();
    for (i, picture) in pictures.into_iter().enumerate() {
        let difference = |overlay: &image::RgbImage| -> u64 {
            let at = |x: u32, y: u32| (y as usize * padded_width + x as usize) * 3;
            let pixels = overlay.enumerate_pixels().map(|(x, y, pixel)| (pixel.0, &picture[at(x, y)..]));
            pixels.flat_map(|(a, b)| (0..3).map(move |c| u64::from(a[c].abs_diff(b[c])))).sum()
        };
        let closest = (0..12).min_by_key(|other| difference(&overlays[*other])).unwrap();
        let mean = difference(&overlays[i]) as f64 / (width * height * 3) as f64;
        assert!(
            closest == i && mean < 20.0,
            "picture {i} is overlay {closest}, and differs by {mean} of 255"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_run_that_is_ended_by_the_terminal_has_a_whole_video() {
    use std::os::unix::process::CommandExt;
    use std::time::{Duration, Instant};

    if !has_ffmpeg() {
        println!("skipped: there is no ffmpeg here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let arguments = crate::program::run_arguments("phantom", &["--frames", "100000", "--video", "a.mp4"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = crate::program::command(folder.path(), &arguments);
    let mut child = command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let lines =
        || std::fs::read_to_string(folder.path().join("out/results.jsonl")).map_or(0, |t| t.lines().count());
    let deadline = Instant::now() + Duration::from_secs(120);
    while lines() < 12 {
        assert!(Instant::now() < deadline, "{} frames pass", lines());
        std::thread::sleep(Duration::from_millis(5));
    }
    // As a terminal does: to all processes of the group.
    let group = format!("-{}", child.id());
    assert!(Command::new("kill").args(["-TERM", "--", &group]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-nostdin", "-i"]).arg(folder.path().join("a.mp4"));
    let output = ffmpeg.args(["-f", "rawvideo", "-pix_fmt", "gray", "-"]).output().unwrap();
    assert_eq!(output.stdout.len(), lines() * 512 * 512);
}

#[test]
fn what_cannot_be_made_costs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    for (name, width) in [("1.png", 60), ("2.png", 60), ("3.png", 48)] {
        let grey = pixels(0, width, 44);
        image::save_buffer(images.join(name), &grey, width as u32, 44, image::ColorType::L8).unwrap();
    }
    let finished = run(folder.path(), "images", &["--seg", "found.seg.nrrd", "--coco", "coco.json"]);
    let sentence = "cannot write found.seg.nrrd: frames have another size from frame 2 on, but a volume has one: export each \
                    part by itself";
    assert_eq!(finished.code, 1);
    let said: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(said, [format!("{sentence}; everything else goes on"), format!("error: {sentence}")]);
    assert_eq!(results(&folder.path().join("out")).len(), 3);
    let coco: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("coco.json")).unwrap()).unwrap();
    let names: Vec<&Value> =
        coco["images"].as_array().unwrap().iter().map(|image| &image["file_name"]).collect();
    assert_eq!(names, ["1.png", "2.png", "3.png"]);
    let left = contents(folder.path());
    assert!(
        !left.iter().any(|(name, _)| name.contains("seg") || name.contains("ultramotion")),
        "nothing half-made"
    );
}

#[test]
fn command_lines_and_files_that_do_not_fit_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let source = shelf().sequence().display().to_string();
    let made = run(path, &source, &["--frames", "3"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    write_sequence(&path.join("short.mha"), 2);
    image::save_buffer(path.join("wide.png"), &pixels(0, 80, 44), 80, 44, image::ColorType::L8).unwrap();
    std::fs::write(path.join("empty.jsonl"), "").unwrap();
    let fails = |arguments: &[&str]| {
        let finished = export(path, arguments);
        (finished.code, error_of(&finished, path))
    };
    let results = "out/results.jsonl";
    let wide = format!("error: frame 0 of wide.png is 80x44 pixels, but {WIDTH}x{HEIGHT} in the results");
    for (arguments, code, sentence) in [
        (
            &[results][..],
            2,
            "error: say what to make: --coco, --mot, --csv, --masks, --seg or --video, and where",
        ),
        (
            &[results, "--video", "a.mp4"],
            2,
            "error: --video shows the frames: give them with --source, as `run` was given them",
        ),
        (
            &[results, "--csv", "a", "--coco", "./a"],
            2,
            "error: --csv: 'a' is what --coco names, and would be lost; choose another",
        ),
        (
            &[results, "--mot", "a.txt", "--csv", "a.labels.txt"],
            2,
            "error: --csv: 'a.labels.txt' is what --mot names, and would be lost; choose another",
        ),
        (
            &[results, "--csv", "out/../out/results.jsonl"],
            2,
            "error: --csv: 'out/../out/results.jsonl' is what RESULTS.jsonl names, and would be lost; choose another",
        ),
        (
            &[results, "--source", "short.mha", "--csv", "short.mha"],
            2,
            "error: --csv: 'short.mha' is what --source names, and would be lost; choose another",
        ),
        (
            &[results, "--source", "igtl://localhost", "--csv", "a"],
            2,
            "error: --source 'igtl://localhost': what was live cannot be read again; give a recording of it",
        ),
        (
            &[results, "--source", "short.mha", "--csv", "a"],
            1,
            "error: short.mha ends before frame 2: is it what the results are of?",
        ),
        (
            &[results, "--source", "wide.png", "--csv", "a"],
            1,
            &format!("{wide}: is it what the results are of?"),
        ),
        (
            &["short.mha", "--csv", "a"],
            1,
            "error: short.mha, line 1: it is no line of results (expected value at line 1 column 1): give a results.jsonl",
        ),
        (&["empty.jsonl", "--coco", "a"], 1, "error: empty.jsonl has no line of results"),
        (&["none.jsonl", "--coco", "a"], 1, "error: cannot open none.jsonl: there is no such file or folder"),
        (
            &[results, "--coco", "no/a.json"],
            1,
            "error: cannot write no/a.json: there is no such file or folder",
        ),
    ] {
        let (got_code, said) = fails(arguments);
        assert_eq!((got_code, said.lines().last()), (code, Some(sentence)), "{arguments:?}: {said}");
    }
    let names: Vec<String> = contents(path).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["empty.jsonl", "out/results.jsonl", "short.mha", "wide.png"], "nothing half-made");
}

#[test]
fn half_a_line_and_a_missing_source_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let source = shelf().sequence().display().to_string();
    let made = run(folder.path(), &source, &["--frames", "3"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let path = folder.path().join("out/results.jsonl");
    let text = std::fs::read(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 1]).unwrap();
    let finished = export(folder.path(), &["out/results.jsonl", "--csv", "a.csv", "--seg", "a.seg.nrrd"]);
    assert_eq!(finished.code, 0);
    assert!(finished.stdout.starts_with("results      out/results.jsonl: 2 frames"), "{}", finished.stdout);
    let said: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(
        said,
        [
            "without --source the size of a pixel is not known: --csv has no millimetres",
            "without --source the size of a pixel is not known: --seg takes it for 1 mm",
            "the last line of out/results.jsonl is half a one, and was passed over",
        ]
    );
}

#[test]
fn without_ffmpeg_a_run_says_where_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let sequence = shelf().sequence().display().to_string();
    let before = folder.path().join("out/results.jsonl");
    std::fs::create_dir(before.parent().unwrap()).unwrap();
    std::fs::write(&before, "what was found before").unwrap();
    let arguments = crate::program::run_arguments(&sequence, &["--frames", "1", "--video", "a.mp4"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = crate::program::command(folder.path(), &arguments);
    let finished: Finished = command.env("PATH", folder.path()).output().unwrap().into();
    assert_eq!(finished.code, 1);
    assert_eq!(
        error_of(&finished, folder.path()),
        "error: video needs the program ffmpeg, which is not installed here: apt-get install ffmpeg (Debian, Ubuntu), brew \
         install ffmpeg (macOS) or winget install ffmpeg (Windows)"
    );
    assert_eq!(std::fs::read_to_string(before).unwrap(), "what was found before");
}

#[cfg(unix)]
#[test]
fn a_file_that_fails_at_the_end_is_a_failure_whoever_reads_the_summary() {
    let folder = tempfile::tempdir().unwrap();
    let source = shelf().sequence().display().to_string();
    assert_eq!(run(folder.path(), &source, &["--frames", "2"]).code, 0);
    // Its folder is gone by the time that it is finished: the pipe holds up the reading of results until then.
    let pipe = folder.path().join("results.pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let gone = folder.path().join("gone");
    std::fs::create_dir(&gone).unwrap();
    let mut command = crate::program::command(
        folder.path(),
        &["export", "results.pipe", "--csv", "gone/a.csv", "--coco", "a.json"],
    );
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let text = std::fs::read(folder.path().join("out/results.jsonl")).unwrap();
    let mut to = std::fs::File::options().write(true).open(&pipe).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::fs::read_dir(&gone).unwrap().count() == 0 {
        assert!(std::time::Instant::now() < deadline, "it begins");
        std::thread::yield_now();
    }
    std::fs::remove_dir_all(&gone).unwrap();
    std::io::Write::write_all(&mut to, &text).unwrap();
    drop(to);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("error: cannot write gone/a.csv: there is no such file"), "{last}");
    assert!(folder.path().join("a.json").exists());
}
