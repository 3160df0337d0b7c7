"""Files as ITK, pynrrd and Pillow write and read them, for `oracle.rs`.

    python oracle.py FOLDER    writes files, and FOLDER/expected.json: what these libraries read of each

For each file: its name, width and height, and for each frame its values as a list of bytes (8 bits, or windowed as the file says).
Says which of the libraries are missing, and does with what there is.
"""

import json
import pathlib
import sys

import numpy as np

KINDS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


def windowed(values: np.ndarray) -> np.ndarray:
    """Wide values in 8 bits, as `metaimage/mod.rs` says: one window, that of the first frame."""
    if values.dtype == np.uint8:
        return values
    low, high = float(values[0].min()), float(values[0].max())
    share = (values.astype(np.float64) - low) / (high - low)
    return np.clip(np.floor(255.0 * share + 0.5), 0, 255).astype(np.uint8)


def entry(path: pathlib.Path, frames: np.ndarray, spacing=None) -> dict:
    """`frames` is `[frames, height, width]` or `[frames, height, width, 3]`."""
    return {
        "file": path.name,
        "width": int(frames.shape[2]),
        "height": int(frames.shape[1]),
        "spacing": spacing,
        "frames": [frame.ravel().tolist() for frame in windowed(frames)],
    }


def with_itk(folder: pathlib.Path, random: np.random.Generator):
    import SimpleITK as sitk

    for kind in KINDS:
        for ending, compressed in [("mha", False), ("mha", True), ("mhd", False), ("nrrd", False), ("nrrd", True), ("nhdr", False)]:
            frames = (200 * random.random((3, 9, 14))).astype(kind)
            image = sitk.GetImageFromArray(frames)
            image.SetSpacing((0.25, 0.125, 1.0))
            path = folder / f"{kind}-{ending}-{int(compressed)}.{ending}"
            sitk.WriteImage(image, str(path), compressed)
            yield entry(path, sitk.GetArrayFromImage(sitk.ReadImage(str(path))), [0.25, 0.125])
    for ending in ["mha", "nrrd"]:
        frames = random.integers(0, 256, (2, 9, 14, 3), dtype=np.uint8)
        path = folder / f"colour.{ending}"
        sitk.WriteImage(sitk.GetImageFromArray(frames, isVector=True), str(path), True)
        yield entry(path, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    # By hand, what ITK reads and does not write.
    values = random.integers(0, 256, (3, 4, 5), dtype=np.uint8)
    common = "NDims = 3\nDimSize = 5 4 3\nElementType = MET_UCHAR\n"
    for number, frame in enumerate(values):
        (folder / f"s{number}.raw").write_bytes(frame.tobytes())
        (folder / f"t{number:03}.raw").write_bytes(frame.tobytes())
    (folder / "whole.raw").write_bytes(values.tobytes())
    text = " ".join(str(value) for value in values.ravel())
    for name, header in [
        ("no-end.mhd", f"{common}ElementDataFile = whole.raw"),
        ("list.mhd", f"{common}ElementDataFile = LIST\ns0.raw\ns1.raw\ns2.raw\n"),
        ("pattern.mhd", f"{common}ElementDataFile = s%d.raw 0 2 1\n"),
        ("padded.mhd", f"{common}ElementDataFile = t%03d.raw 0 2 1\n"),
        ("text.mha", f"BinaryData = False\n{common}ElementDataFile = LOCAL\n{text}\n"),
        ("comments.mhd", f"# by hand\nObjectType = Image\n{common}ElementDataFile = whole.raw\n"),
        ("fractions.mhd", f"{common.replace('5 4 3', '5.0 4.0 3')}ElementDataFile = whole.raw\n"),
        ("turned.mhd", f"{common}ElementSpacing = -0.5 0.25 1\nElementDataFile = whole.raw\n"),
        ("skipped.mhd", f"{common}HeaderSize = -1\nElementDataFile = whole.raw\n"),
    ]:
        path = folder / name
        path.write_text(header)
        image = sitk.ReadImage(str(path))
        # ITK has 1 where nothing is said.
        spacing = list(image.GetSpacing()[:2]) if "Spacing" in header else None
        yield entry(path, sitk.GetArrayFromImage(image), spacing)


def with_pynrrd(folder: pathlib.Path, random: np.random.Generator):
    import nrrd

    for kind in KINDS:
        for encoding in ["raw", "gzip", "bzip2", "ASCII"]:
            for ending in ["nrrd", "nhdr"]:
                if encoding == "ASCII" and kind.startswith("float"):
                    continue  # written with fewer digits than there are
                frames = (200 * random.random((3, 9, 14))).astype(kind)
                path = folder / f"pynrrd-{kind}-{encoding}.{ending}"
                header = {"encoding": encoding, "spacings": [0.25, 0.125, 1.0]}
                nrrd.write(str(path), frames, header, index_order="C")
                read, _ = nrrd.read(str(path), index_order="C")
                yield entry(path, read, [0.25, 0.125])


def with_pillow(folder: pathlib.Path, random: np.random.Generator):
    from PIL import Image, ImageOps

    grey = random.integers(0, 256, (9, 14), dtype=np.uint8)
    colour = random.integers(0, 256, (9, 14, 3), dtype=np.uint8)
    smooth = np.add.outer(np.arange(64) * 2, np.arange(96)).astype(np.uint8)
    pictures = {
        "grey.bmp": (Image.fromarray(grey), {}),
        "colour.bmp": (Image.fromarray(colour), {}),
        "grey.tif": (Image.fromarray(grey), {}),
        "colour-deflate.tif": (Image.fromarray(colour), {"compression": "tiff_deflate"}),
        "grey-lzw.tif": (Image.fromarray(grey), {"compression": "tiff_lzw"}),
        "lossless.webp": (Image.fromarray(colour), {"lossless": True}),
        "grey.png": (Image.fromarray(grey), {}),
        "bits.png": (Image.fromarray(grey > 99), {}),
        "palette.png": (Image.fromarray(colour).quantize(16), {}),
    }
    for name, (picture, options) in pictures.items():
        path = folder / name
        picture.save(path, **options)
        read = Image.open(path)
        mode = "L" if read.mode in ("1", "L") else "RGB"
        yield entry(path, np.asarray(read.convert(mode))[None])
    pages = [Image.fromarray(random.integers(0, 256, (9, 14), dtype=np.uint8)) for _ in range(3)]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    yield entry(folder / "pages.tif", np.stack([np.asarray(page) for page in pages]))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = folder / f"exif{orientation}.jpg"
        Image.fromarray(smooth).save(path, quality=95, exif=exif)
        yield entry(path, np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("L"))[None])
    shades = np.stack([smooth, smooth[::-1], smooth[:, ::-1], smooth // 2], axis=-1)
    Image.fromarray(shades, "CMYK").save(folder / "cmyk.jpg", quality=95)
    yield entry(folder / "cmyk.jpg", np.asarray(Image.open(folder / "cmyk.jpg").convert("RGB"))[None])
    frames = [Image.fromarray(random.integers(0, 4, (9, 14), dtype=np.uint8) * 60) for _ in range(4)]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:], duration=40)
    animation = Image.open(folder / "a.gif")
    shown = []
    for number in range(animation.n_frames):
        animation.seek(number)
        shown.append(np.asarray(animation.convert("RGB")))
    yield entry(folder / "a.gif", np.stack(shown))


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    random = np.random.default_rng(7)
    files = []
    for part in (with_itk, with_pynrrd, with_pillow):
        try:
            files += part(folder, random)
        except ModuleNotFoundError as missing:
            print(f"skipped: {part.__name__}: {missing}")
    (folder / "expected.json").write_text(json.dumps(files))
    print(f"{len(files)} files")


main()
