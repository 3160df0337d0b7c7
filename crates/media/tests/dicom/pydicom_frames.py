"""What pydicom reads of its bundled test files, as the 8-bit pixels of frames.

Usage: pydicom_frames.py FOLDER. Writes FOLDER/N.raw for every file that has pictures and that pydicom decodes, and a line
each to standard output: N, frames, height, width, channels, tolerance in grey levels, path; separated by tabs.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_windowing, pixel_array

# Values are 8 or 16 bits in DICOM's own terms; the way to 8 bits is that of `crates/media/src/source/dicom/pixels.rs`.
JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.91")


def rounded(values):
    return np.floor(np.clip(values, 0, 255) + 0.5).astype(np.uint8)


def frames_of(dataset, path):
    """Frames as [frame, height, width, channel] of bytes, and the tolerance."""
    values = pixel_array(path)
    if int(dataset.get("NumberOfFrames", 1) or 1) == 1:
        values = values[None]
    tolerance = 2 if dataset.file_meta.TransferSyntaxUID in JPEG else 0
    kind = dataset.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(values, dataset)
        return (colours >> 8 if colours.dtype == np.uint16 else colours).astype(np.uint8), tolerance
    if values.ndim == 4:
        most = 2**dataset.BitsStored - 1
        return ((values.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8), tolerance
    if "WindowCenter" in dataset:
        values = apply_modality_lut(values, dataset)
        bits = dataset.BitsStored
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)
        # pydicom takes the ends of its output through the modality's straight line.
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        low, high = low * slope + intercept, high * slope + intercept
        grey = rounded(255 * (apply_windowing(values, dataset).astype(np.float64) - low) / (high - low))
        # Two ways of computing may round a half to different sides.
        tolerance = max(tolerance, 1)
    elif dataset.BitsAllocated == 8:
        grey = values.astype(np.uint8)
    else:
        numbers = values.astype(np.float64)
        low, high = numbers[0].min(), numbers[0].max()
        grey = rounded(255 * (numbers - low) / (high - low))
    if kind == "MONOCHROME1":
        grey = 255 - grey
    return grey[..., None], tolerance


def main():
    warnings.simplefilter("ignore")
    out = Path(sys.argv[1])
    tests = Path(pydicom.__file__).parent / "data" / "test_files"
    for number, path in enumerate(sorted(tests.glob("*.dcm"))):
        try:
            dataset = pydicom.dcmread(path)
            frames, tolerance = frames_of(dataset, path)
        except Exception as error:
            print(f"{path.name}: pydicom does not decode it ({type(error).__name__})", file=sys.stderr)
            continue
        (out / f"{number}.raw").write_bytes(np.ascontiguousarray(frames).tobytes())
        print(number, *frames.shape, tolerance, path, sep="\t")


main()
