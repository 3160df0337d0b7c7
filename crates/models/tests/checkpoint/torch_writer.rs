//! Writes PyTorch files by hand, honest and hostile ones.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A zip file of uncompressed entries, under the folder `archive/` as PyTorch has it.
pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in entries {
        zip.start_file(format!("archive/{name}"), options).expect("in memory");
        zip.write_all(content).expect("in memory");
    }
    zip.finish().expect("in memory").into_inner()
}

/// A pickle of protocol 2 in the making.
#[derive(Clone)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn text(self, text: &str) -> Self {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn long(self, value: i64) -> Self {
        self.op(&[0x8A, 8]).op(&value.to_le_bytes())
    }

    pub fn longs(self, values: &[i64]) -> Self {
        values.iter().fold(self.op(b"("), |p, &v| p.long(v)).op(b"t")
    }

    /// An f32 tensor over the storage of that name and length.
    pub fn tensor(self, storage: (&str, i64), offset: i64, shape: &[i64], strides: &[i64]) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .op(b"((")
            .text("storage")
            .global("torch", "FloatStorage")
            .text(storage.0)
            .text("cpu")
            .long(storage.1)
            .op(b"tQ")
            .long(offset)
            .longs(shape)
            .longs(strides)
            .op(b"\x89")
            .global("collections", "OrderedDict")
            .op(b")RtR")
    }

    pub fn stop(self) -> Vec<u8> {
        self.op(b".").0
    }
}

/// A bare OrderedDict, as `mobile_sam.pt` is one, with one tensor `w` as described over a storage of four elements.
pub fn one_tensor(offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let pickle = Pickle::new()
        .global("collections", "OrderedDict")
        .op(b")R(")
        .text("w")
        .tensor(("0", 4), offset, shape, strides)
        .op(b"u");
    let storage: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    archive(&[("data.pkl", &pickle.stop()), ("data/0", &storage)])
}
