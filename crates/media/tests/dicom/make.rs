//! Writes small DICOM files, with the name of a patient in all places that have one.

use std::path::Path;

use dicom_core::value::PixelFragmentSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

/// What must be in no frame, log or error.
pub const SECRETS: [&str; 6] =
    ["Doe^Jane", "PID-4711", "19700101", "Saint Elsewhere", "Dr^House", "1.2.826.0.1.99"];

pub const LITTLE: &str = uids::EXPLICIT_VR_LITTLE_ENDIAN;

/// A file that is being made.
#[derive(Clone)]
pub struct Made {
    pub object: InMemDicomObject,
    pub syntax: &'static str,
}

impl Made {
    /// An ultrasound picture of 8 bits without its pixels.
    pub fn new(width: u16, height: u16, photometric: &str) -> Self {
        let channels = if photometric.starts_with("MONO") || photometric.starts_with("PAL") { 1 } else { 3 };
        let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
        let word = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
        let object = InMemDicomObject::from_element_iter([
            text(tags::SOP_CLASS_UID, VR::UI, uids::ULTRASOUND_MULTI_FRAME_IMAGE_STORAGE),
            text(tags::SOP_INSTANCE_UID, VR::UI, "1.2.826.0.1.99.3"),
            text(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.826.0.1.99.1"),
            text(tags::SERIES_INSTANCE_UID, VR::UI, "1.2.826.0.1.99.2"),
            text(tags::PATIENT_NAME, VR::PN, SECRETS[0]),
            text(tags::PATIENT_ID, VR::LO, SECRETS[1]),
            text(tags::PATIENT_BIRTH_DATE, VR::DA, SECRETS[2]),
            text(tags::INSTITUTION_NAME, VR::LO, SECRETS[3]),
            text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, SECRETS[4]),
            text(tags::MODALITY, VR::CS, "US"),
            text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, photometric),
            word(tags::SAMPLES_PER_PIXEL, channels),
            word(tags::ROWS, height),
            word(tags::COLUMNS, width),
            word(tags::BITS_ALLOCATED, 8),
            word(tags::BITS_STORED, 8),
            word(tags::HIGH_BIT, 7),
            word(tags::PIXEL_REPRESENTATION, 0),
        ]);
        Self { object, syntax: LITTLE }
    }

    pub fn with(mut self, tag: Tag, vr: VR, value: impl Into<PrimitiveValue>) -> Self {
        self.object.put(DataElement::new(tag, vr, value.into()));
        self
    }

    pub fn text(self, tag: Tag, vr: VR, value: &str) -> Self {
        self.with(tag, vr, value)
    }

    pub fn word(self, tag: Tag, value: u16) -> Self {
        self.with(tag, VR::US, value)
    }

    pub fn sixteen_bits(self, stored: u16) -> Self {
        self.word(tags::BITS_ALLOCATED, 16).word(tags::BITS_STORED, stored).word(tags::HIGH_BIT, stored - 1)
    }

    pub fn frames(self, count: usize) -> Self {
        self.text(tags::NUMBER_OF_FRAMES, VR::IS, &count.to_string())
    }

    pub fn items(mut self, tag: Tag, items: Vec<InMemDicomObject>) -> Self {
        self.object.put(DataElement::new(tag, VR::SQ, dicom_core::value::DataSetSequence::from(items)));
        self
    }

    /// Pixels as they are, bytes.
    pub fn bytes(self, pixels: &[u8]) -> Self {
        self.with(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(pixels.into()))
    }

    /// Pixels as they are, 16-bit words.
    pub fn words(self, pixels: &[u16]) -> Self {
        self.with(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into()))
    }

    /// Coded pixels: the offset table and the fragments.
    pub fn fragments(mut self, syntax: &'static str, offsets: Vec<u32>, fragments: Vec<Vec<u8>>) -> Self {
        let even = |mut fragment: Vec<u8>| {
            fragment.resize(fragment.len().next_multiple_of(2), 0);
            fragment
        };
        let fragments: Vec<Vec<u8>> = fragments.into_iter().map(even).collect();
        let value = PixelFragmentSequence::new(offsets, fragments);
        self.object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, value));
        self.syntax = syntax;
        self
    }

    pub fn write(&self, path: &Path) {
        let meta = FileMetaTableBuilder::new().transfer_syntax(self.syntax);
        self.object.clone().with_meta(meta).unwrap().write_to_file(path).unwrap();
    }
}

/// A region of the screen: its corners, format, data type and size of pixels.
pub fn region(corners: [u32; 4], format: u16, data: u16, delta_cm: [f64; 2]) -> InMemDicomObject {
    let long = |tag, value: u32| DataElement::new(tag, VR::UL, PrimitiveValue::from(value));
    let word = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    let double = |tag, value: f64| DataElement::new(tag, VR::FD, PrimitiveValue::from(value));
    InMemDicomObject::from_element_iter([
        word(tags::REGION_SPATIAL_FORMAT, format),
        word(tags::REGION_DATA_TYPE, data),
        long(tags::REGION_LOCATION_MIN_X0, corners[0]),
        long(tags::REGION_LOCATION_MIN_Y0, corners[1]),
        long(tags::REGION_LOCATION_MAX_X1, corners[2]),
        long(tags::REGION_LOCATION_MAX_Y1, corners[3]),
        word(tags::PHYSICAL_UNITS_X_DIRECTION, 3),
        word(tags::PHYSICAL_UNITS_Y_DIRECTION, 3),
        double(tags::PHYSICAL_DELTA_X, delta_cm[0]),
        double(tags::PHYSICAL_DELTA_Y, delta_cm[1]),
    ])
}

/// Planes of bytes as one frame of run lengths: pairs of equal bytes as runs, others as they are.
pub fn run_lengths(planes: &[Vec<u8>]) -> Vec<u8> {
    let segments = planes.iter().map(|plane| {
        let mut coded = vec![0x80];
        for run in plane.chunk_by(|a, b| a == b) {
            for part in run.chunks(128) {
                match part {
                    [one] => coded.extend([0, *one]),
                    many => coded.extend([(1 - many.len() as i16) as u8, many[0]]),
                }
            }
        }
        coded.resize(coded.len().next_multiple_of(2), 0x80);
        coded
    });
    let mut table = vec![planes.len() as u32];
    let mut body = Vec::new();
    for segment in segments {
        table.push(64 + body.len() as u32);
        body.extend(segment);
    }
    table.resize(16, 0);
    table.iter().flat_map(|word| word.to_le_bytes()).chain(body).collect()
}

/// A grey JPEG.
pub fn jpeg(width: u16, height: u16, pixels: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut coded, 95);
    let image = image::GrayImage::from_raw(width.into(), height.into(), pixels.to_vec()).unwrap();
    image.write_with_encoder(encoder).unwrap();
    coded
}
