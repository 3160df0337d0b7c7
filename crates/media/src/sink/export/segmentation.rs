//! 3D Slicer's segmentations, `.seg.nrrd`: an NRRD volume of labels (<https://teem.sourceforge.net/nrrd/format.html>) with
//! keys that say what each value is (3D Slicer's documentation, "Segmentations", and `vtkMRMLSegmentationStorageNode`).

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use ultramotion_types::{BitMask, CocoRle, Frame, RecordedLine};

use super::draft::Draft;
use super::{Exporter, mask_of, terminology};
use crate::error::MediaError;
use crate::sink::track_colour;

/// Voxels of all layers together; 3D Slicer has each of them in memory.
const MAX_VOXELS: u64 = 2 << 30;
/// Values of a voxel of 16 bits, but 0.
const MAX_SEGMENTS: usize = 65_535;

/// A segment a track, a slice a frame. Tracks that overlap in a frame are in different layers, so that each has all of its
/// pixels.
///
/// The slices count from the first frame that was taken; a frame between without results is an empty one. In the plane a voxel
/// is as large as a pixel (1 mm where that is not known); slices are 1 mm apart, and the volume begins at the number of its
/// first frame, so that it lies on a recording that is loaded as a volume and begins at the origin. Masks wait in a file of
/// their own, since the layers are known at the end.
#[derive(Debug)]
pub struct SegmentationFile {
    file: Draft,
    /// For each line the slice and the masks with their segments, as JSON.
    masks: BufWriter<File>,
    shape: Option<Shape>,
    segments: Vec<Segment>,
    by_track: HashMap<i32, usize>,
    /// Pairs of segments that share a pixel, the smaller first.
    overlaps: BTreeSet<[usize; 2]>,
}

/// What all slices have in common, and how many there are.
#[derive(Clone, Copy, Debug)]
struct Shape {
    width: usize,
    height: usize,
    spacing_mm: Option<[f64; 2]>,
    first_frame_id: u64,
    slices: u64,
}

#[derive(Debug)]
struct Segment {
    track_id: i32,
    label: String,
    layer: usize,
}

impl SegmentationFile {
    /// Begins a segmentation.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn create(path: &Path) -> Result<Self, MediaError> {
        let file = Draft::create(path)?;
        Ok(Self {
            masks: BufWriter::new(file.scratch()?),
            file,
            shape: None,
            segments: Vec::new(),
            by_track: HashMap::new(),
            overlaps: BTreeSet::new(),
        })
    }

    /// The slice of a line, if it has the others' size.
    fn slice(&mut self, line: &RecordedLine, frame: Option<&Frame>) -> Result<u64, MediaError> {
        let spacing_mm = frame.and_then(Frame::known_spacing_mm);
        let shape = self.shape.get_or_insert(Shape {
            width: line.width,
            height: line.height,
            spacing_mm,
            first_frame_id: line.frame_id,
            slices: 0,
        });
        let changed = if [line.width, line.height] != [shape.width, shape.height] {
            Some("frames")
        } else if !is_same_spacing(spacing_mm, shape.spacing_mm) {
            Some("pixels")
        } else {
            None
        };
        if let Some(what) = changed {
            let problem = format!(
                "{what} have another size from frame {} on, but a volume has one: export each part by itself",
                line.frame_id
            );
            return Err(self.file.export(problem));
        }
        let slice = line.frame_id.saturating_sub(shape.first_frame_id);
        shape.slices = slice.saturating_add(1);
        let shape = *shape;
        self.check_room(shape, 1)?;
        Ok(slice)
    }

    fn check_room(&self, shape: Shape, layers: usize) -> Result<(), MediaError> {
        let Shape { width, height, slices, .. } = shape;
        let sizes = [width as u64, height as u64, slices, layers as u64];
        let voxels = sizes.into_iter().try_fold(1u64, |voxels, size| voxels.checked_mul(size));
        if voxels.is_some_and(|voxels| voxels <= MAX_VOXELS) {
            return Ok(());
        }
        let times = if layers == 1 { String::new() } else { format!(" in {layers} layers") };
        let problem = format!(
            "{slices} frames of {width}x{height} pixels{times} are more than {} GiB of voxels, which is too much for 3D Slicer: \
             export fewer frames",
            MAX_VOXELS >> 30
        );
        Err(self.file.export(problem))
    }

    /// Puts each segment into the first layer where it overlaps none. Gives their number.
    fn arrange(&mut self) -> usize {
        let mut layers = 1;
        let mut taken = BTreeSet::new();
        // Neighbours of a segment that come before it, and so have a layer.
        let mut earlier: Vec<Vec<usize>> = vec![Vec::new(); self.segments.len()];
        self.overlaps.iter().for_each(|&[a, b]| earlier[b].push(a));
        for (segment, neighbours) in earlier.into_iter().enumerate() {
            taken.clear();
            taken.extend(neighbours.iter().map(|neighbour| self.segments[*neighbour].layer));
            let layer = (0..).find(|layer| !taken.contains(layer)).unwrap_or(0);
            self.segments[segment].layer = layer;
            layers = layers.max(layer + 1);
        }
        layers
    }
}

impl Exporter for SegmentationFile {
    fn take(&mut self, line: &RecordedLine, frame: Option<&Frame>) -> Result<(), MediaError> {
        let slice = self.slice(line, frame)?;
        let mut masks: Vec<(usize, BitMask)> = Vec::with_capacity(line.objects.len());
        let mut codes: Vec<(usize, &CocoRle)> = Vec::with_capacity(line.objects.len());
        for object in &line.objects {
            let next = self.segments.len();
            let segment = *self.by_track.entry(object.track_id).or_insert(next);
            if segment == next {
                if next == MAX_SEGMENTS {
                    let problem = format!("there are more than {MAX_SEGMENTS} tracks: export fewer frames");
                    return Err(self.file.export(problem));
                }
                let label = object.label.clone();
                self.segments.push(Segment { track_id: object.track_id, label, layer: 0 });
            }
            let mask = mask_of(object, self.file.name())?;
            for (other, shared) in &masks {
                if *other != segment && mask.view().shared_px(shared.view()) > 0 {
                    self.overlaps.insert([segment.min(*other), segment.max(*other)]);
                }
            }
            masks.push((segment, mask));
            codes.push((segment, &object.mask));
        }
        serde_json::to_writer(&mut self.masks, &(slice, codes))
            .map_err(io::Error::from)
            .and_then(|()| self.masks.write_all(b"\n"))
            .map_err(self.file.cannot_write())
    }

    fn finish(mut self: Box<Self>) -> Result<(), MediaError> {
        let layers = self.arrange();
        let Some(shape) = self.shape else {
            return Err(self.file.export("there are no frames, and an empty volume is none"));
        };
        self.check_room(shape, layers)?;
        let Self { mut file, masks, segments, .. } = *self;
        let cannot_write = file.cannot_write();
        let write = || -> io::Result<()> {
            file.write_all(header(shape, layers, &segments).as_bytes())?;
            let mut masks = masks.into_inner()?;
            masks.rewind()?;
            let mut voxels = Voxels {
                to: GzEncoder::new(&mut file, Compression::default()),
                shape,
                layers,
                segments: &segments,
            };
            voxels.write(BufReader::new(masks))?;
            voxels.to.finish().map(drop)
        };
        write().map_err(cannot_write)?;
        file.finish()
    }
}

/// Whether pixels are equally large, but for the rounding of a pose that they are computed from.
fn is_same_spacing(a: Option<[f64; 2]>, b: Option<[f64; 2]>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-3 * b),
        (a, b) => a == b,
    }
}

/// The header, with the empty line that ends it.
fn header(shape: Shape, layers: usize, segments: &[Segment]) -> String {
    let Shape { width, height, spacing_mm, first_frame_id, slices } = shape;
    let [spacing_x, spacing_y] = spacing_mm.unwrap_or([1.0; 2]);
    let scalar = if is_wide(segments) { "unsigned short\nendian: little" } else { "unsigned char" };
    // One layer is a volume, several are a list of values a voxel.
    let (dimension, size, direction, kind) = match layers {
        1 => (3, String::new(), "", ""),
        _ => (4, format!("{layers} "), "none ", "list "),
    };
    let mut header = format!(
        "NRRD0004\ntype: {scalar}\ndimension: {dimension}\nspace: left-posterior-superior\n\
         sizes: {size}{width} {height} {slices}\n\
         space directions: {direction}({spacing_x},0,0) (0,{spacing_y},0) (0,0,1)\n\
         kinds: {kind}domain domain domain\nencoding: gzip\nspace origin: (0,0,{first_frame_id})\n"
    );
    let mut key = |name: &str, value: &str| {
        // Backslashes and line ends are escaped, as the format says.
        let value = value.replace('\\', "\\\\").replace('\n', "\\n");
        header.push_str(&format!("{name}:={value}\n"));
    };
    // Segments of a layer are cut to the extent of the first of them: so each has that of all.
    let extent = format!("0 {} 0 {} 0 {}", width - 1, height - 1, slices - 1);
    for (index, Segment { track_id, label, layer }) in segments.iter().enumerate() {
        let mut key = |name: &str, value: &str| key(&format!("Segment{index}_{name}"), value);
        let colour = u64::try_from(*track_id).map_or([255; 3], track_colour);
        key("ID", &format!("Segment_{track_id}"));
        key("Name", &format!("{label} {track_id}"));
        key("NameAutoGenerated", "0");
        key("Color", &colour.map(|channel| format!("{:.6}", f64::from(channel) / 255.0)).join(" "));
        key("ColorAutoGenerated", "0");
        key("LabelValue", &(index + 1).to_string());
        key("Layer", &layer.to_string());
        key("Extent", &extent);
        key("Tags", &format!("TerminologyEntry:{}|", terminology::entry(label)));
    }
    key("Segmentation_ContainedRepresentationNames", "Binary labelmap|");
    key("Segmentation_MasterRepresentation", "Binary labelmap");
    key("Segmentation_ReferenceImageExtentOffset", "0 0 0");
    header.push('\n');
    header
}

/// Whether values need 16 bits.
fn is_wide(segments: &[Segment]) -> bool {
    segments.len() > usize::from(u8::MAX)
}

/// The voxels, `[slices, height, width, layers]`, as they are written.
struct Voxels<'a, W> {
    to: W,
    shape: Shape,
    layers: usize,
    segments: &'a [Segment],
}

impl<W: Write> Voxels<'_, W> {
    /// Writes all slices, of which `lines` are those with results.
    fn write(&mut self, mut lines: impl BufRead) -> io::Result<()> {
        let mut text = String::new();
        let mut written = 0;
        while lines.read_line(&mut text)? > 0 {
            let (slice, codes): (u64, Vec<(usize, CocoRle)>) = serde_json::from_str(&text)?;
            for _ in written..slice {
                self.slice(&[])?;
            }
            let decode =
                |(segment, code): (usize, CocoRle)| Ok((segment, code.decode().map_err(io::Error::other)?));
            let masks: Vec<(usize, BitMask)> = codes.into_iter().map(decode).collect::<io::Result<_>>()?;
            self.slice(&masks)?;
            written = slice + 1;
            text.clear();
        }
        Ok(())
    }

    fn slice(&mut self, masks: &[(usize, BitMask)]) -> io::Result<()> {
        let Shape { width, height, .. } = self.shape;
        let bytes = if is_wide(self.segments) { 2 } else { 1 };
        let boxes: Vec<_> = masks.iter().map(|(_, mask)| mask.view().box_xyxy()).collect();
        let mut row = vec![0u8; width * self.layers * bytes];
        for y in 0..height {
            row.fill(0);
            for ((segment, mask), extent) in masks.iter().zip(&boxes) {
                let Some([x1, _, x2, _]) = extent.filter(|[_, y1, _, y2]| (*y1..*y2).contains(&y)) else {
                    continue;
                };
                let value = (*segment as u16 + 1).to_le_bytes();
                for x in (x1..x2).filter(|x| mask.view().contains(*x, y)) {
                    let at = (x * self.layers + self.segments[*segment].layer) * bytes;
                    row[at..at + bytes].copy_from_slice(&value[..bytes]);
                }
            }
            self.to.write_all(&row)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::super::testing::{line, object};
    use super::*;

    /// A file's keys and voxels.
    fn written(lines: &[RecordedLine], frame: Option<&Frame>) -> (HashMap<String, String>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.seg.nrrd");
        let mut file = Box::new(SegmentationFile::create(&path).unwrap());
        lines.iter().for_each(|line| file.take(line, frame).unwrap());
        file.finish().unwrap();
        let bytes = std::fs::read(path).unwrap();
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
        let header = std::str::from_utf8(&bytes[..end]).unwrap();
        let pair = |line: &str| {
            let (key, value) = line.split_once(":=").or_else(|| line.split_once(": "))?;
            Some((key.to_owned(), value.to_owned()))
        };
        let mut voxels = Vec::new();
        GzDecoder::new(&bytes[end + 2..]).read_to_end(&mut voxels).unwrap();
        (header.lines().filter_map(pair).collect(), voxels)
    }

    #[test]
    fn a_slice_is_a_frame_and_one_without_results_is_empty() {
        let lines = [
            line(5, vec![object(7, "vessel", [1, 2, 5, 8]), object(9, "bone", [6, 2, 9, 4])]),
            line(7, vec![object(9, "bone", [0, 0, 3, 3])]),
        ];
        let frame = Frame { spacing_mm: Some([0.25, 0.5]), ..Frame::default() };
        let (keys, voxels) = written(&lines, Some(&frame));
        for (key, value) in [
            ("type", "unsigned char"),
            ("dimension", "3"),
            ("sizes", "16 12 3"),
            ("space directions", "(0.25,0,0) (0,0.5,0) (0,0,1)"),
            ("space origin", "(0,0,5)"),
            ("kinds", "domain domain domain"),
            ("Segment0_ID", "Segment_7"),
            ("Segment0_Name", "vessel 7"),
            ("Segment0_LabelValue", "1"),
            ("Segment1_LabelValue", "2"),
            ("Segment1_Layer", "0"),
            ("Segment1_Extent", "0 15 0 11 0 2"),
            ("Segmentation_MasterRepresentation", "Binary labelmap"),
        ] {
            assert_eq!(keys[key], value, "{key}");
        }
        assert!(!keys.contains_key("Segment2_ID"));
        let value = |x: usize, y: usize, z: usize| voxels[(z * 12 + y) * 16 + x];
        assert_eq!(voxels.len(), 16 * 12 * 3);
        assert_eq!((value(1, 2, 0), value(4, 7, 0), value(5, 7, 0), value(6, 2, 0)), (1, 1, 0, 2));
        assert!(voxels[16 * 12..2 * 16 * 12].iter().all(|value| *value == 0));
        assert_eq!((value(2, 2, 2), value(3, 2, 2)), (2, 0));
    }

    #[test]
    fn tracks_that_overlap_are_in_layers_and_whole() {
        let rectangles = [[0, 0, 6, 6], [4, 4, 9, 9], [8, 8, 12, 12], [0, 0, 12, 12]];
        let objects = (0..4).map(|i| object(i + 1, "vessel", rectangles[i as usize])).collect();
        let (keys, voxels) = written(&[line(0, objects)], None);
        let layers: Vec<&str> = (0..4).map(|i| keys[&format!("Segment{i}_Layer")].as_str()).collect();
        assert_eq!(layers, ["0", "1", "0", "2"]);
        assert_eq!(
            (keys["sizes"].as_str(), keys["kinds"].as_str()),
            ("3 16 12 1", "list domain domain domain")
        );
        assert_eq!(keys["space directions"], "none (1,0,0) (0,1,0) (0,0,1)");
        for (i, [x1, y1, x2, y2]) in rectangles.into_iter().enumerate() {
            let layer: usize = layers[i].parse().unwrap();
            let count = voxels.iter().skip(layer).step_by(3).filter(|value| **value == i as u8 + 1).count();
            assert_eq!(count, (x2 - x1) * (y2 - y1), "segment {i}");
        }
    }

    #[test]
    fn many_tracks_have_values_of_16_bits() {
        let lines: Vec<_> =
            (0..300).map(|i| line(i, vec![object(i as i32 + 1, "a\\b\nc", [0, 0, 1, 1])])).collect();
        let (keys, voxels) = written(&lines, None);
        assert_eq!((keys["type"].as_str(), keys["endian"].as_str()), ("unsigned short", "little"));
        assert_eq!(keys["Segment299_Name"], "a\\\\b\\nc 300");
        let last = &voxels[299 * 16 * 12 * 2..][..2];
        assert_eq!((voxels.len(), last), (300 * 16 * 12 * 2, 300u16.to_le_bytes().as_slice()));
    }

    #[test]
    fn what_no_volume_can_be_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.seg.nrrd");
        let problem = |lines: &[RecordedLine]| {
            let mut file = Box::new(SegmentationFile::create(&path).unwrap());
            let taken = lines.iter().try_for_each(|line| file.take(line, None));
            let problem = taken.and_then(|()| file.finish()).unwrap_err().to_string();
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
            problem.replace(&path.display().to_string(), "FILE")
        };
        assert_eq!(problem(&[]), "cannot write FILE: there are no frames, and an empty volume is none");
        let other = RecordedLine { width: 8, objects: vec![], ..line(4, vec![]) };
        assert_eq!(
            problem(&[line(0, vec![]), other]),
            "cannot write FILE: frames have another size from frame 4 on, but a volume has one: export each part by itself"
        );
        let frame = |mm: f64| Frame { spacing_mm: Some([mm, 0.5]), ..Frame::default() };
        let mut file = SegmentationFile::create(&path).unwrap();
        file.take(&line(0, vec![]), Some(&frame(0.25))).unwrap();
        file.take(&line(1, vec![]), Some(&frame(0.250_000_1))).unwrap();
        let zoomed = file.take(&line(2, vec![]), Some(&frame(0.3))).unwrap_err().to_string();
        assert!(zoomed.contains("pixels have another size from frame 2 on"), "{zoomed}");
        drop(file);
        let far = "cannot write FILE: 18446744073709551615 frames of 16x12 pixels are more than 2 GiB of voxels, \
                   which is too much for 3D Slicer: export fewer frames";
        assert_eq!(problem(&[line(0, vec![]), line(u64::MAX, vec![])]), far);
    }
}
