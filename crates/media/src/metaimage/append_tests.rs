//! A sequence that grows is whole wherever its writing stops.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tempfile::TempDir;

use super::append::{Appending, Files, Growing};
use super::{AppendWriter, Layout, Recovery, export_mha, recover};
use crate::error::MediaError;
use ultramotion_types::{Frame, NamedTransform};

const WIDTH: usize = 4;
const HEIGHT: usize = 3;
const FRAMES: u64 = 3;

/// The room of a disk, in bytes.
#[derive(Clone)]
struct Room(Arc<AtomicU64>);

/// A file on a disk that may be full in the middle of a write.
struct OnSmallDisk {
    file: File,
    room: Room,
}

impl Write for OnSmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(self.room.0.load(Relaxed) as usize);
        if fits == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room.0.fetch_sub(fits as u64, Relaxed);
        self.file.write(&bytes[..fits])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Growing for OnSmallDisk {
    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        self.file.cut(bytes)?;
        self.room.0.fetch_add(before - bytes, Relaxed);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn layout() -> Layout {
    Layout { compressed: false, spacing_mm: Some([0.5, 0.25]), ..Layout::grey8(WIDTH, HEIGHT) }
}

fn values(number: u64) -> Vec<u8> {
    (0..(WIDTH * HEIGHT) as u64).map(|i| (i * 7 + number * 31) as u8).collect()
}

fn time_s(number: u64) -> f64 {
    100.0 + number as f64 / 3.0
}

fn pose(number: u64) -> NamedTransform {
    let matrix = std::array::from_fn(|i| std::array::from_fn(|j| (i * 4 + j) as f64 + number as f64 / 7.0));
    NamedTransform { name: "ProbeToTracker".into(), matrix, valid: number != 1 }
}

fn on_small_disk(path: &Path, room: &Room) -> Result<Appending<OnSmallDisk>, MediaError> {
    let files = Files::of(path).unwrap();
    let open = |path: &Path| {
        let file = File::options().append(true).create_new(true).open(path).unwrap();
        OnSmallDisk { file, room: room.clone() }
    };
    let (data, part) = (open(&files.data), open(&files.part));
    Appending::start(files, layout(), data, part, false)
}

/// Every frame of a sequence is as it was written; gives how many there are.
fn check_frames(path: &Path) -> u64 {
    let reader = super::open(path).unwrap();
    let frames: Vec<Frame> = crate::source::frames(Box::new(reader)).map(Result::unwrap).collect();
    for (frame, number) in frames.iter().zip(0..) {
        assert!(frame.pixels == values(number), "frame {number}");
        assert_eq!((frame.timestamp_s, frame.spacing_mm), (time_s(number), Some([0.5, 0.25])));
        assert_eq!(frame.transforms, [pose(number)]);
    }
    frames.len() as u64
}

/// Bytes that the frames and their header take.
fn bytes_in_all() -> u64 {
    let folder = TempDir::new().unwrap();
    let room = Room(Arc::new(AtomicU64::new(1 << 20)));
    let mut writer = on_small_disk(&folder.path().join("a.igs.mhd"), &room).unwrap();
    (0..FRAMES).for_each(|n| writer.write_raw(&values(n), time_s(n), &[pose(n)]).unwrap());
    writer.complete().unwrap();
    (1 << 20) - room.0.load(Relaxed)
}

#[test]
fn a_disk_that_is_full_after_any_byte_costs_one_frame_at_most() {
    for bytes in 0..bytes_in_all() + 1 {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.igs.mhd");
        let room = Room(Arc::new(AtomicU64::new(bytes)));
        let Ok(mut writer) = on_small_disk(&path, &room) else { continue };
        let written =
            (0..FRAMES).take_while(|&n| writer.write_raw(&values(n), time_s(n), &[pose(n)]).is_ok());
        let written = written.count() as u64;
        let frames = writer.complete().unwrap();
        assert!(frames == written || frames + 1 == written, "{frames} of {written} with {bytes} bytes");
        assert!(bytes < bytes_in_all() || frames == FRAMES);
        if frames == 0 {
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of nothing");
            continue;
        }
        assert_eq!(check_frames(&path), frames);
        assert_eq!(recover(&path).unwrap(), Recovery::Whole { frames });
    }
}

#[test]
fn after_a_write_that_failed_the_next_one_may_go_well() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.mhd");
    let room = Room(Arc::new(AtomicU64::new(1 << 20)));
    let mut writer = on_small_disk(&path, &room).unwrap();
    for number in 0..FRAMES {
        room.0.store(30, Relaxed);
        assert!(writer.write_raw(&values(number), time_s(number), &[pose(number)]).is_err());
        room.0.store(1 << 20, Relaxed);
        writer.write_raw(&values(number), time_s(number), &[pose(number)]).unwrap();
    }
    assert_eq!(writer.complete().unwrap(), FRAMES);
    assert_eq!(check_frames(&path), FRAMES);
}

#[test]
fn a_writer_that_dies_after_any_byte_leaves_its_whole_frames() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.igs.mhd");
    let files = Files::of(&path).unwrap();
    let length = |path: &Path| std::fs::metadata(path).unwrap().len() as usize;
    let mut writer = AppendWriter::create(&path, layout(), false).unwrap();
    // Lengths of both files that a death may leave, with the frames that are whole then. Pixels come before lines.
    let mut deaths = vec![];
    let mut at = (length(&files.data), length(&files.part));
    for number in 0..FRAMES {
        writer.write_raw(&values(number), time_s(number), &[pose(number)]).unwrap();
        let then = (length(&files.data), length(&files.part));
        deaths.extend((at.0..then.0).map(|data| (data, at.1, number)));
        deaths.extend((at.1..then.1).map(|part| (then.0, part, number)));
        at = then;
    }
    writer.finish().unwrap();
    deaths.extend((at.1..=length(&path)).map(|part| (at.0, part, FRAMES)));
    let (data, header) = (std::fs::read(&files.data).unwrap(), std::fs::read(&path).unwrap());
    for (data_bytes, part_bytes, whole) in deaths {
        let _ = std::fs::remove_file(&path);
        std::fs::write(&files.data, &data[..data_bytes]).unwrap();
        std::fs::write(&files.part, &header[..part_bytes]).unwrap();
        let done = recover(&path).unwrap();
        if whole == 0 {
            assert_eq!(done, Recovery::Empty);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
            continue;
        }
        assert!(matches!(done, Recovery::Completed { frames, .. } if frames == whole), "{done:?}: {whole}");
        assert_eq!(check_frames(&path), whole);
        assert_eq!(recover(&path).unwrap(), Recovery::Whole { frames: whole });
    }
}

#[test]
fn pixels_whose_lines_are_lost_are_not_thrown_away() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.mhd");
    let files = Files::of(&path).unwrap();
    let mut writer = AppendWriter::create(&path, layout(), false).unwrap();
    (0..FRAMES).for_each(|n| writer.write_raw(&values(n), time_s(n), &[pose(n)]).unwrap());
    writer.finish().unwrap();
    let (data, header) = (std::fs::read(&files.data).unwrap(), std::fs::read(&path).unwrap());
    let first = header.windows(4).position(|bytes| bytes == b"Seq_").unwrap();
    // As a loss of power may leave them: lines that never reached the disk, or zeros in their place.
    for part in [vec![], vec![0; 600], header[..first].to_vec()] {
        let _ = std::fs::remove_file(&path);
        std::fs::write(&files.part, &part).unwrap();
        let error = recover(&path).unwrap_err().to_string();
        assert!(error.contains("a.raw") && error.ends_with("stay where they are"), "{error}");
        assert!(std::fs::read(&files.data).unwrap() == data);
    }
}

#[test]
fn a_header_in_the_middle_is_of_the_frames_up_to_there() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("frames.igs.mhd");
    let mut writer = AppendWriter::create(&path, layout(), true).unwrap();
    for number in 0..FRAMES {
        writer.write_raw(&values(number), time_s(number), &[pose(number)]).unwrap();
        writer.refresh_and_wait();
        assert_eq!(check_frames(&path), number + 1);
    }
    let error = recover(&path).unwrap_err();
    assert!(
        error.to_string().ends_with("is being written: end the program that records it first"),
        "{error}"
    );
    assert_eq!(writer.finish().unwrap(), FRAMES);
    let mut left: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["frames.igs.mhd", "frames.raw"]);
}

#[test]
fn one_file_holds_the_same_frames() {
    let folder = TempDir::new().unwrap();
    let (path, one) = (folder.path().join("frames.igs.mhd"), folder.path().join("frames.igs.mha"));
    let mut writer = AppendWriter::create(&path, layout(), false).unwrap();
    (0..FRAMES).for_each(|n| writer.write_raw(&values(n), time_s(n), &[pose(n)]).unwrap());
    writer.finish().unwrap();
    let bytes = export_mha(&path, &one).unwrap();
    assert_eq!(std::fs::metadata(&one).unwrap().len(), bytes);
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(folder.path().join("frames.raw")).unwrap();
    assert_eq!(check_frames(&one), FRAMES);
}
