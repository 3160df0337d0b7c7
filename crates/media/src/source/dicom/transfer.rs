//! How the pixels of a file are coded (PS3.5 section 10 and annex A), and what to do about codings that are not decoded.

use dicom_dictionary_std::uids;
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

/// Retired in 2006, and still in archives.
pub(super) const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// A coding of pixels that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Samples as they are.
    Native,
    /// Run lengths, PS3.5 annex G.
    Rle,
    /// JPEG: baseline, extended with 8 bits, lossless.
    Jpeg,
    /// JPEG 2000, lossless or not.
    Jpeg2000,
}

impl Coding {
    /// The coding of a transfer syntax; `None` where it is not decoded.
    pub(super) fn of(transfer_syntax: &str) -> Option<Self> {
        match transfer_syntax {
            uids::IMPLICIT_VR_LITTLE_ENDIAN
            | uids::EXPLICIT_VR_LITTLE_ENDIAN
            | EXPLICIT_VR_BIG_ENDIAN
            | uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN => Some(Self::Native),
            uids::RLE_LOSSLESS => Some(Self::Rle),
            uids::JPEG_BASELINE8_BIT
            | uids::JPEG_EXTENDED12_BIT
            | uids::JPEG_LOSSLESS
            | uids::JPEG_LOSSLESS_SV1 => Some(Self::Jpeg),
            uids::JPEG2000_LOSSLESS | uids::JPEG2000 => Some(Self::Jpeg2000),
            _ => None,
        }
    }
}

/// "1.2.840.… (JPEG-LS …) is not decoded: convert …", about a transfer syntax.
pub(super) fn not_decoded(transfer_syntax: &str) -> String {
    let uid: String = transfer_syntax.chars().filter(|c| c.is_ascii_digit() || *c == '.').take(64).collect();
    let name = TransferSyntaxRegistry.get(&uid).map_or("unknown", |syntax| syntax.name());
    let way = match uid.strip_prefix("1.2.840.10008.1.2.") {
        Some("1.99") => "write it anew by `dcmconv +te IN OUT` of DCMTK",
        Some("4.80" | "4.81") => {
            "write it anew by `dcmdjpls IN OUT` of DCMTK or `gdcmconv --raw IN OUT` of GDCM"
        }
        Some(video) if is_video(video) => {
            "take the film out of it by `gdcmraw -i IN -t 7fe0,0010 -o OUT.mp4` of GDCM"
        }
        _ => "write it anew by `gdcmconv --raw IN OUT` of GDCM",
    };
    format!("{uid} ({name}) is not decoded: {way}")
}

/// MPEG-2, MPEG-4 and HEVC are 1.2.840.10008.1.2.4.100 to 108.
fn is_video(end: &str) -> bool {
    end.strip_prefix("4.")
        .and_then(|rest| rest.split('.').next()?.parse().ok())
        .is_some_and(|n| (100..=108).contains(&n))
}
