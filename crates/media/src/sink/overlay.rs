//! Draws results over the frame they belong to.

use std::path::Path;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use ultramotion_types::{Frame, MaskView, PixelFormat, ResultPacket};

use super::font::{GLYPH_HEIGHT, GLYPH_WIDTH, glyph};
use crate::error::MediaError;

/// One thing to draw.
#[derive(Clone, Copy, Debug)]
pub struct OverlayObject<'a> {
    /// Decides the colour; an object without one is white.
    pub track_id: Option<u64>,
    /// Solid lines when true, dashed ones when not.
    pub confirmed: bool,
    /// What it is.
    pub label: &'a str,
    /// 0 to 1.
    pub score: f32,
    /// Left, top, right, bottom, pixels of the frame.
    pub box_xyxy: [f32; 4],
    /// Its pixels, at the size of the frame.
    pub mask: Option<MaskView<'a>>,
}

/// Red, green, blue.
type Rgb = [u8; 3];

/// The colour of a track: the same for an id in every frame and run, and far from those of the ids next to it.
pub fn track_colour(track_id: u64) -> [u8; 3] {
    // Steps of the golden ratio spread hues evenly, however many there are.
    let hue = (track_id as f64 * 0.618_033_988_749_895 + 0.12).fract() as f32;
    let lightest = [1.0, 0.8][(track_id / 7 % 2) as usize];
    let channel = |offset: f32| {
        let ramp = (((hue + offset).fract() * 6.0 - 3.0).abs() - 1.0).clamp(0.0, 1.0);
        (255.0 * lightest * (0.25 + 0.75 * ramp)) as u8
    };
    [channel(0.0), channel(2.0 / 3.0), channel(1.0 / 3.0)]
}

const NOTICE: &str = "RESEARCH USE ONLY";
const FILL_OPACITY: f32 = 0.22;
const PLATE_OPACITY: f32 = 0.65;

/// A rectangle of pixels: left, top, width, height.
#[derive(Clone, Copy, Debug)]
struct Plate {
    x: i64,
    y: i64,
    width: i64,
    height: i64,
}

impl Plate {
    fn touches(&self, other: &Self) -> bool {
        self.x < other.x + other.width
            && other.x < self.x + self.width
            && self.y < other.y + other.height
            && other.y < self.y + self.height
    }
}

/// A picture that is drawn over and over, reusing its memory.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    plates: Vec<Plate>,
    edge: Vec<bool>,
}

impl Overlay {
    /// An empty picture.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pixels in a row and number of rows of the last picture.
    pub fn size_px(&self) -> [usize; 2] {
        [self.width, self.height]
    }

    /// The last picture, `[height, width, 3]`: red, green, blue.
    pub fn rgb(&self) -> &[u8] {
        &self.pixels
    }

    /// Draws `frame` with `objects` over it: translucent fill and outline of each mask, box, and a plate with label,
    /// id and score; and in a corner that this is for research.
    ///
    /// Lines and letters grow with the frame. Objects are drawn last to first, so that the first (best) lies on top.
    pub fn draw(&mut self, frame: &Frame, objects: &[OverlayObject<'_>]) {
        (self.width, self.height) = (frame.width, frame.height);
        self.pixels.clear();
        match frame.pixel_format {
            PixelFormat::Grey8 => self.pixels.extend(frame.pixels.iter().flat_map(|&grey| [grey; 3])),
            PixelFormat::Rgb8 => self.pixels.extend_from_slice(&frame.pixels),
        }
        // A frame that breaks its own promise must not end a run.
        self.pixels.resize(self.width * self.height * 3, 0);
        let scale = ((self.width.min(self.height) + 250) / 400).max(1) as i64;

        for object in objects.iter().rev() {
            let colour = object.track_id.map_or([255; 3], track_colour);
            if let Some(mask) = object.mask {
                self.fill(mask, colour, scale, object.confirmed);
            }
            self.frame_box(object.box_xyxy, colour, scale, object.confirmed, object.mask.is_some());
        }
        self.plates.clear();
        for object in objects {
            self.name(object, scale);
        }
        self.notice((scale + 1) / 2);
    }

    /// Writes the last picture.
    pub fn write_png(&self, path: &Path) -> Result<(), MediaError> {
        // Encoded first, then written in one go: a full disk is then an error and not a picture cut short in silence.
        let mut encoded = Vec::new();
        PngEncoder::new_with_quality(&mut encoded, CompressionType::Fast, FilterType::Adaptive)
            .write_image(&self.pixels, self.width as u32, self.height as u32, ExtendedColorType::Rgb8)
            .map_err(|error| MediaError::io("encode", path)(std::io::Error::other(error)))?;
        std::fs::write(path, encoded).map_err(MediaError::io("write", path))
    }

    fn blend(&mut self, x: i64, y: i64, colour: Rgb, opacity: f32) {
        if x < 0 || y < 0 || x >= self.width as i64 || y >= self.height as i64 {
            return;
        }
        let at = (y as usize * self.width + x as usize) * 3;
        for (below, above) in self.pixels[at..at + 3].iter_mut().zip(colour) {
            *below = (f32::from(*below) + (f32::from(above) - f32::from(*below)) * opacity).round() as u8;
        }
    }

    /// [`Overlay::draw`] with the objects of a frame's results.
    pub fn draw_results(&mut self, frame: &Frame, packet: &ResultPacket) {
        let objects: Vec<OverlayObject<'_>> = packet
            .objects_with_masks()
            .map(|(object, mask)| OverlayObject {
                track_id: u64::try_from(object.track_id).ok(),
                confirmed: object.confirmed,
                label: packet.label(object.class),
                score: object.score,
                box_xyxy: object.box_xyxy,
                mask: Some(mask),
            })
            .collect();
        self.draw(frame, &objects);
    }

    fn rectangle(&mut self, plate: Plate, colour: Rgb, opacity: f32) {
        let columns = plate.x.max(0)..(plate.x + plate.width).min(self.width as i64);
        for y in plate.y.max(0)..(plate.y + plate.height).min(self.height as i64) {
            for x in columns.clone() {
                self.blend(x, y, colour, opacity);
            }
        }
    }

    fn fill(&mut self, mask: MaskView<'_>, colour: Rgb, scale: i64, confirmed: bool) {
        let Some([x1, y1, x2, y2]) = mask.box_xyxy() else { return };
        // The outline lies inside the mask; a thicker one grows inwards.
        self.edge.clear();
        self.edge.resize((x2 - x1) * (y2 - y1), false);
        let reach = scale.max(1);
        for y in y1..y2 {
            for x in x1..x2 {
                let outside = |dx: i64, dy: i64| {
                    let (nx, ny) = (x as i64 + dx, y as i64 + dy);
                    nx < 0 || ny < 0 || !mask.contains(nx as usize, ny as usize)
                };
                let near = || {
                    (1..=reach).any(|r| outside(r, 0) || outside(-r, 0) || outside(0, r) || outside(0, -r))
                };
                self.edge[(y - y1) * (x2 - x1) + x - x1] = mask.contains(x, y) && near();
            }
        }
        for y in y1..y2 {
            for x in x1..x2 {
                if !mask.contains(x, y) {
                    continue;
                }
                let dash = confirmed || (x as i64 + y as i64) / (4 * scale) % 2 == 0;
                let is_edge = self.edge[(y - y1) * (x2 - x1) + x - x1] && dash;
                self.blend(x as i64, y as i64, colour, if is_edge { 0.95 } else { FILL_OPACITY });
            }
        }
    }

    fn frame_box(&mut self, box_xyxy: [f32; 4], colour: Rgb, scale: i64, confirmed: bool, has_mask: bool) {
        let Some([x1, y1, x2, y2]) = self.whole_box(box_xyxy) else { return };
        // With an outline the box is secondary.
        let opacity = if has_mask { 0.55 } else { 0.95 };
        let shows = |along: i64| confirmed || along / (5 * scale) % 2 == 0;
        for x in x1..x2 {
            if shows(x - x1) {
                for t in 0..scale {
                    self.blend(x, y1 + t, colour, opacity);
                    self.blend(x, y2 - 1 - t, colour, opacity);
                }
            }
        }
        for y in y1 + scale..y2 - scale {
            if shows(y - y1) {
                for t in 0..scale {
                    self.blend(x1 + t, y, colour, opacity);
                    self.blend(x2 - 1 - t, y, colour, opacity);
                }
            }
        }
    }

    /// The box in whole pixels, inside the picture; `None` for one that is nowhere.
    fn whole_box(&self, box_xyxy: [f32; 4]) -> Option<[i64; 4]> {
        if !box_xyxy.iter().all(|edge| edge.is_finite()) {
            return None;
        }
        let limit = [self.width, self.height, self.width, self.height];
        let whole: [i64; 4] = std::array::from_fn(|i| (box_xyxy[i].round() as i64).clamp(0, limit[i] as i64));
        (whole[0] < whole[2] && whole[1] < whole[3]).then_some(whole)
    }

    fn name(&mut self, object: &OverlayObject<'_>, scale: i64) {
        let Some([x1, y1, _, y2]) = self.whole_box(object.box_xyxy) else { return };
        let id = object.track_id.map(|id| format!(" #{id}")).unwrap_or_default();
        let doubt = if object.confirmed { "" } else { "?" };
        let text = format!("{}{doubt}{id} {:.2}", object.label, object.score);
        let [width, height] = text_size(&text, scale);
        let pad = scale + 1;
        let plate = Plate { x: 0, y: 0, width: width + 2 * pad, height: height + 2 * pad };
        let x = x1.min(self.width as i64 - plate.width).max(0);
        // Above the box, else below it, else further up or down until it is free of other plates.
        let mut places = vec![y1 - plate.height, y2, y1];
        places.extend((1..4).flat_map(|i| [y1 - (i + 1) * plate.height, y2 + i * plate.height]));
        let fits = |y: &i64| {
            let here = Plate { x, y: *y, ..plate };
            *y >= 0
                && y + plate.height <= self.height as i64
                && !self.plates.iter().any(|other| other.touches(&here))
        };
        let y = places.iter().copied().find(fits).unwrap_or((y1 - plate.height).max(0));
        let plate = Plate { x, y, ..plate };
        self.plates.push(plate);
        let colour = object.track_id.map_or([255; 3], track_colour);
        self.rectangle(plate, [0; 3], PLATE_OPACITY);
        self.rectangle(Plate { width: scale, ..plate }, colour, 1.0);
        self.text(&text, x + pad + 1, y + pad, scale, colour);
    }

    fn notice(&mut self, scale: i64) {
        let [width, height] = text_size(NOTICE, scale);
        let margin = 2 * scale;
        let (x, y) = (self.width as i64 - width - 2 * margin, self.height as i64 - height - 2 * margin);
        let plate =
            Plate { x: x - margin, y: y - margin, width: width + 2 * margin, height: height + 2 * margin };
        self.rectangle(plate, [0; 3], PLATE_OPACITY);
        self.text(NOTICE, x, y, scale, [170; 3]);
    }

    fn text(&mut self, text: &str, x: i64, y: i64, scale: i64, colour: Rgb) {
        for (index, character) in text.chars().enumerate() {
            let left = x + index as i64 * (GLYPH_WIDTH as i64 + 1) * scale;
            for (row, bits) in (0i64..).zip(glyph(character)) {
                for column in (0..GLYPH_WIDTH as i64)
                    .filter(|column| bits >> (GLYPH_WIDTH as i64 - 1 - column) & 1 != 0)
                {
                    let dot =
                        Plate { x: left + column * scale, y: y + row * scale, width: scale, height: scale };
                    self.rectangle(dot, colour, 1.0);
                }
            }
        }
    }
}

/// Width and height of a line of text, pixels.
fn text_size(text: &str, scale: i64) -> [i64; 2] {
    let letters = text.chars().count() as i64;
    [(letters * (GLYPH_WIDTH as i64 + 1) - 1).max(0) * scale, GLYPH_HEIGHT as i64 * scale]
}

#[cfg(test)]
mod tests {
    use ultramotion_types::BitMask;

    use super::*;

    fn object(track_id: Option<u64>, box_xyxy: [f32; 4], mask: Option<MaskView<'_>>) -> OverlayObject<'_> {
        OverlayObject { track_id, confirmed: true, label: "vessel", score: 0.91, box_xyxy, mask }
    }

    #[test]
    fn colours_of_neighbouring_tracks_differ() {
        for id in 0..200 {
            let distance = |a: Rgb, b: Rgb| {
                a.iter().zip(b).map(|(a, b)| i32::from(*a).abs_diff(i32::from(b))).sum::<u32>()
            };
            for other in id + 1..id + 5 {
                assert!(distance(track_colour(id), track_colour(other)) > 60, "{id} and {other}");
            }
            assert!(track_colour(id).iter().max() > Some(&180), "{id} is too dark to see");
        }
    }

    #[test]
    fn what_is_drawn_lies_where_it_should() {
        let frame = Frame::grey8(300, 260, vec![10; 300 * 260]);
        let mask = BitMask::from_fn(300, 260, |x, y| (100..160).contains(&x) && (90..150).contains(&y));
        let mut overlay = Overlay::new();
        overlay.draw(&frame, &[object(Some(4), [100.0, 90.0, 160.0, 150.0], Some(mask.view()))]);
        let colour = track_colour(4);
        let at = |x: usize, y: usize| &overlay.rgb()[(y * 300 + x) * 3..][..3];
        // Outline nearly in the track's colour, inside a little of it, nothing outside but the plate and the notice.
        assert!(
            at(100, 120).iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 30),
            "{:?} {colour:?}",
            at(100, 120)
        );
        assert!(at(130, 120).iter().zip(colour).all(|(a, b)| *a < 10 + b / 3));
        assert_ne!(at(130, 120), [10; 3]);
        assert_eq!(at(200, 120), [10; 3]);
        assert_eq!(at(60, 200), [10; 3]);
        assert_ne!(&overlay.rgb()[(250 * 300 + 200) * 3..], &vec![10; (10 * 300 - 200) * 3]);
    }

    #[test]
    fn unconfirmed_tracks_are_dashed() {
        let frame = Frame::grey8(300, 260, vec![10; 300 * 260]);
        let count = |confirmed: bool| {
            let mut overlay = Overlay::new();
            let solid = object(Some(1), [50.0, 100.0, 250.0, 200.0], None);
            overlay.draw(&frame, &[OverlayObject { confirmed, ..solid }]);
            (50..250).filter(|x| overlay.rgb()[(199 * 300 + x) * 3..][..3] != [10; 3]).count()
        };
        assert_eq!(count(true), 200);
        assert_eq!(count(false), 100);
    }

    #[test]
    fn odd_input_is_drawn_without_fuss() {
        let mut overlay = Overlay::new();
        let mask = BitMask::from_fn(50, 50, |_, _| true);
        let boxes = [
            [f32::NAN, 0.0, 1.0, 1.0],
            [-1e30, -1e30, 1e30, 1e30],
            [5.0, 5.0, 2.0, 2.0],
            [3.0, 3.0, 3.4, 3.4],
            [0.0, 0.0, f32::INFINITY, 4.0],
        ];
        for (width, height) in [(1, 1), (3, 2), (40, 300)] {
            let frame = Frame::rgb8(width, height, vec![0; width * height * 3]);
            for box_xyxy in boxes {
                let long = OverlayObject {
                    label: "übergroß \u{1F9E0} label that is long",
                    ..object(None, box_xyxy, Some(mask.view()))
                };
                overlay.draw(&frame, &[long, long]);
                assert_eq!(overlay.rgb().len(), width * height * 3);
            }
        }
    }
}
