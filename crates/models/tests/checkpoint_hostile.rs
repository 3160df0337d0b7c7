//! Checkpoints that are not as they should be: cut off, damaged, something else, or made to attack. Each gives one
//! error that says so; none panics, runs anything, or takes memory that its size does not justify.

#[path = "checkpoint/torch_writer.rs"]
mod torch_writer;

use proptest::prelude::*;
use torch_writer::{Pickle, archive, one_tensor};
use ultramotion_models::checkpoint::{
    self, Checkpoint, CheckpointError, StoredPrecision, WeightTensor, Weights, load_bytes,
};

const SMALL_PTH: &[u8] = include_bytes!("checkpoint/small.pth");

/// A small file of our own format.
fn our_file() -> Vec<u8> {
    let mut weights = Weights::new("a test");
    for (name, n) in [("first", 3), ("second", 5)] {
        weights.insert(name, WeightTensor::from_f32(name, &[n], &vec![1.5; n]).expect("fits"));
    }
    let mut checkpoint = Checkpoint::new(weights);
    checkpoint.classes = Some(vec!["nerve".into()]);
    checkpoint.input_size = Some([320, 320]);
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let path = folder.path().join("ours.safetensors");
    checkpoint::save(&path, &checkpoint, StoredPrecision::F32).expect("there is space");
    std::fs::read(path).expect("was written")
}

fn error(file: Vec<u8>) -> CheckpointError {
    load_bytes("bad.pth", file).expect_err("this file is bad")
}

/// The error of a file whose `data.pkl` is this.
fn pickle_error(pickle: Vec<u8>) -> CheckpointError {
    error(archive(&[("data.pkl", &pickle), ("data/0", &[0; 16])]))
}

#[test]
fn a_file_cut_off_anywhere_is_an_error() {
    for whole in [SMALL_PTH.to_vec(), our_file()] {
        for len in 0..whole.len() {
            let error = load_bytes("cut.pth", whole[..len].to_vec()).expect_err("it was cut");
            if len > 16 {
                assert!(matches!(error, CheckpointError::Truncated { .. }), "{len}: {error}");
            }
        }
        load_bytes("whole.pth", whole).expect("it is whole");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn damaged_files_never_panic(
        which in 0usize..2,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..=255), 1..6),
    ) {
        let mut file = if which == 0 { SMALL_PTH.to_vec() } else { our_file() };
        for (at, mask) in flips {
            let at = at.index(file.len());
            file[at] ^= mask;
        }
        if let Ok(checkpoint) = load_bytes("damaged.pth", file) {
            // What is accepted must be usable.
            for (_, tensor) in checkpoint.weights.iter() {
                prop_assert_eq!(tensor.to_f32().len(), tensor.shape().iter().product::<usize>());
            }
        }
    }

    /// The checksum keeps damage from reaching the interpreter; here it gets there.
    #[test]
    fn damaged_pickles_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let storage: Vec<u8> = (0..64).collect();
        let mut pickle = Pickle::new()
            .op(b"}q\x00(").text("model").global("collections", "OrderedDict").op(b")Rq\x01(")
            .text("a").tensor(("0", 16), 0, &[4, 4], &[4, 1]).op(b"q\x02")
            .text("b").tensor(("0", 16), 1, &[2, 3], &[1, 4])
            .text("c").op(b"h\x02").op(b"u}").text("_metadata").op(b"]sb")
            .text("epoch").op(b"K\x07").text("loss").op(b"G").op(&1.5f64.to_be_bytes()).op(b"u").stop();
        for (at, byte) in flips {
            let at = at.index(pickle.len());
            pickle[at] = byte;
        }
        if let Some(cut) = cut {
            pickle.truncate(cut.index(pickle.len()));
        }
        if let Ok(checkpoint) = load_bytes("damaged.pth", archive(&[("data.pkl", &pickle), ("data/0", &storage)])) {
            for (_, tensor) in checkpoint.weights.iter() {
                prop_assert_eq!(tensor.to_f32().len(), tensor.shape().iter().product::<usize>());
            }
        }
    }
}

#[test]
fn damage_in_a_tensor_is_found_by_its_checksum() {
    let at = SMALL_PTH.windows(4).position(|w| w == 1.125f32.to_le_bytes()).expect("is one of the values");
    let mut file = SMALL_PTH.to_vec();
    file[at] ^= 1;
    let message = error(file).to_string();
    assert!(
        message.starts_with("the checkpoint `bad.pth` is damaged: the checksum of entry `small/data/"),
        "{message}"
    );
}

#[test]
fn a_pickle_that_would_run_a_command_is_refused_and_runs_nothing() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let marker = folder.path().join("executed");
    let command = format!("touch {}", marker.display());
    let call = |p: Pickle| p.text(&command).op(b"\x85R");
    let attacks = [
        ("posix.system", call(Pickle::new().global("posix", "system")).stop()),
        ("os.system", call(Pickle::new().text("os").text("system").op(b"\x93")).stop()),
        ("builtins.eval", call(Pickle::new().global("builtins", "eval")).stop()),
        ("builtins.getattr", call(Pickle::new().global("builtins", "getattr")).stop()),
        ("torch.load", call(Pickle::new().global("torch", "load")).stop()),
        (
            "torch.storage._load_from_bytes",
            call(Pickle::new().global("torch.storage", "_load_from_bytes")).stop(),
        ),
        (
            "subprocess.Popen",
            Pickle::new().global("subprocess", "Popen").text(&command).op(b"\x85\x81").stop(),
        ),
        // Beside real weights, where it is easily overlooked.
        (
            "os.system",
            call(
                Pickle::new()
                    .op(b"}(")
                    .text("w")
                    .tensor(("0", 4), 0, &[4], &[1])
                    .text("x")
                    .global("os", "system"),
            )
            .op(b"u")
            .stop(),
        ),
    ];
    for (global, pickle) in attacks {
        assert_eq!(
            pickle_error(pickle).to_string(),
            format!(
                "the checkpoint `bad.pth` asks Python to load `{global}`, which weights do not need and which could \
                 run code: refused, nothing was executed; if you trust its source, load it in PyTorch and save its \
                 state_dict alone"
            )
        );
    }
    assert!(!marker.exists());
}

#[test]
fn sizes_that_the_file_does_not_hold_are_refused() {
    let message = |file| error(file).to_string();
    for (offset, shape, strides) in [
        (0, vec![5], vec![1]),
        (1, vec![4], vec![1]),
        (0, vec![2, 2], vec![4, 1]),
        (i64::MAX, vec![1], vec![1]),
        (0, vec![1 << 40, 1 << 40], vec![1, 1]),
        (0, vec![2, 2], vec![i64::MAX, i64::MAX]),
        // Each element is there, but they repeat beyond what any file of this size says.
        (0, vec![1 << 40], vec![0]),
        (0, vec![4, 1 << 20], vec![1, 0]),
    ] {
        let message = message(one_tensor(offset, &shape, &strides));
        assert!(message.contains("reaches beyond its storage of 4 elements"), "{shape:?}: {message}");
    }
    for (shape, strides) in [(vec![-1], vec![1]), (vec![4], vec![1, 1]), (vec![1; 9], vec![1; 9])] {
        let message = message(one_tensor(0, &shape, &strides));
        assert!(message.contains("storage, shape or strides are not understood"), "{message}");
    }
    // A storage that is said to be longer than its entry, and one that is not there.
    for (storage, said) in
        [(("0", 1 << 40), "reaches beyond its storage"), (("1", 4), "its storage `1` is missing")]
    {
        let pickle = Pickle::new().op(b"}(").text("w").tensor(storage, 0, &[1 << 39], &[1]).op(b"u").stop();
        let message = pickle_error(pickle).to_string();
        assert!(message.contains(said), "{message}");
    }
    // Lengths in opcodes.
    for op in [
        &b"X\xff\xff\xff\xff"[..],
        b"B\xff\xff\xff\x7f",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\x7f",
    ] {
        assert!(matches!(pickle_error(Pickle::new().op(op).stop()), CheckpointError::Truncated { .. }));
    }
}

/// Deep nesting, self-reference and mass reference cost neither stack nor memory beyond what the file's size allows.
#[test]
fn structures_that_exhaust_other_readers_do_not_matter() {
    let deep = Pickle::new().op(&b"]".repeat(100_000)).op(&b"a".repeat(99_999)).stop();
    assert!(matches!(pickle_error(deep), CheckpointError::NoWeights { .. }));
    let cycle = Pickle::new().op(b"}q\x00").text("ema").op(b"h\x00s").stop();
    assert!(matches!(pickle_error(cycle), CheckpointError::NoWeights { .. }));
    // Each list holds the one before ten times: 10^1000 items if written out.
    let layer = b"]q\x00(h\x01h\x01h\x01h\x01h\x01h\x01h\x01h\x01h\x01h\x01eq\x01";
    let laughs = Pickle::new().op(b"]q\x01").op(&layer.repeat(1000)).stop();
    assert!(matches!(pickle_error(laughs), CheckpointError::NoWeights { .. }));
    let long = Pickle::new().op(&b"N".repeat(9 << 20)).stop();
    assert!(matches!(pickle_error(long), CheckpointError::Unsupported { .. }));
    // Short opcodes that make large values, references, memo entries or items: 7 MiB of them would take up to 1 GB.
    let many =
        |start: &[u8], ops: &[u8]| Pickle::new().op(start).op(&ops.repeat((7 << 20) / ops.len())).stop();
    for pickle in [
        many(b"", b"N"),
        many(b"", b"]"),
        many(b"", b")"),
        many(b"", b"("),
        many(b"N", b"2"),
        many(b"N", b"\x94"),
        many(b"N", b"NN\x86"),
        many(b"]", b"Na"),
        many(b"}", b"NNs"),
    ] {
        let message = pickle_error(pickle).to_string();
        assert!(message.contains("makes more values than a file of its size needs"), "{message}");
    }
    // One long name, a thousand times.
    let name = "n".repeat(1 << 20);
    let classes = Pickle::new().op(b"}(").text("w").tensor(("0", 4), 0, &[4], &[1]).text("classes").op(b"](");
    let classes = classes.text(&name).op(b"q\x07").op(&b"h\x07".repeat(1000)).op(b"eu").stop();
    assert!(pickle_error(classes).to_string().contains("its class names are longer than the file"));
}

/// Which of two models is read must not be a matter of chance.
#[test]
fn a_file_of_two_models_is_refused() {
    let weights = Pickle::new().op(b"}(").text("w").tensor(("0", 4), 0, &[4], &[1]).op(b"u").stop();
    let one: [(&str, &[u8]); 2] = [("data.pkl", &weights), ("data/0", &[0; 16])];
    load_bytes("one.pth", archive(&one)).expect("is sound");
    let two: [(&str, &[u8]); 2] = [("b/data.pkl", &weights), ("b/data/0", &[1; 16])];
    let message = error(archive(&[one, two].concat())).to_string();
    assert!(message.contains("is a zip file with several `data.pkl`"), "{message}");
}

#[test]
fn stack_errors_are_errors() {
    for op in [
        &b"0"[..],
        b"1",
        b"2",
        b"t",
        b"\x86",
        b"e",
        b"u",
        b"s",
        b"R",
        b"b",
        b"Q",
        b"h\x05",
        b"q\x00",
        b"\x94",
        b"(R",
    ] {
        let error = pickle_error(Pickle::new().op(op).stop());
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{op:?}: {error}");
    }
    // Operands of an open container are out of reach; types are checked.
    for op in [&b"NN(\x86"[..], b"NNR", b"N(NNu", b"N(Ne", b"}(Nu", b"NQ", b"I1\n", b"\x80\x01", b"P0\n"] {
        let error = pickle_error(Pickle::new().op(op).stop());
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{op:?}: {error}");
    }
}

/// Zip directories that lie about how many entries there are, or where.
#[test]
fn directories_that_lie_are_refused() {
    let end = SMALL_PTH.windows(4).rposition(|w| w == b"PK\x05\x06").expect("is a zip file");
    let change = |at: usize, bytes: &[u8]| {
        let mut file = SMALL_PTH.to_vec();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        error(file)
    };
    // PyTorch writes the 64-bit end record as well, which counts.
    let end64 = SMALL_PTH.windows(4).rposition(|w| w == b"PK\x06\x06").expect("is in the 64-bit form");
    assert!(end64 < end);
    for (at, bytes) in
        [(end64 + 32, [0xFF; 8]), (end64 + 48, [0xFF; 8]), (end64 + 48, [0x7F, 0, 0, 0, 0, 0, 0, 0])]
    {
        let error = change(at, &bytes);
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}");
    }
    let central = SMALL_PTH.windows(4).position(|w| w == b"PK\x01\x02").expect("is a zip file");
    assert!(matches!(change(central + 42, &[0xF0; 4]), CheckpointError::Damaged { .. }));
    assert!(matches!(change(central + 24, &[0xF0; 4]), CheckpointError::Unsupported { .. }));
}

/// Two storages whose directory entries point at the same bytes: a way to make a small file look large.
#[test]
fn storages_that_overlap_are_refused() {
    let storage = vec![0u8; 4096];
    let pickle = (0..4).fold(Pickle::new().op(b"}("), |p, i| {
        p.text(&format!("w{i}")).tensor((&i.to_string(), 1024), 0, &[1024], &[1])
    });
    let pickle = pickle.op(b"u").stop();
    let entries: Vec<String> = (0..4).map(|i| format!("data/{i}")).collect();
    let mut contents: Vec<(&str, &[u8])> = vec![("data.pkl", &pickle)];
    contents.extend(entries.iter().map(|name| (name.as_str(), storage.as_slice())));
    let honest = archive(&contents);
    load_bytes("honest.pth", honest.clone()).expect("is sound");

    // Drop the data of the last three and point all four at the first.
    let local = |i: usize| {
        let name = format!("archive/data/{i}");
        honest.windows(name.len()).position(|w| w == name.as_bytes()).expect("is an entry") - 30
    };
    let (first, second) = (local(0), local(1));
    let directory = honest.windows(4).position(|w| w == b"PK\x01\x02").expect("is a zip file");
    let mut file = honest[..second].to_vec();
    let moved = directory - second;
    let new_directory = file.len() as u32;
    file.extend_from_slice(&honest[directory..]);
    let mut at = new_directory as usize;
    while file[at..].starts_with(b"PK\x01\x02") {
        let (name, extra) = (usize::from(file[at + 28]), usize::from(file[at + 30]));
        if file[at + 46..at + 46 + name].starts_with(b"archive/data/") {
            file[at + 42..at + 46].copy_from_slice(&(first as u32).to_le_bytes());
        }
        at += 46 + name + extra;
    }
    let end = file.windows(4).rposition(|w| w == b"PK\x05\x06").expect("is a zip file");
    file[end + 16..end + 20].copy_from_slice(&((directory - moved) as u32).to_le_bytes());
    let message = error(file).to_string();
    assert!(message.contains("its storages overlap"), "{message}");
}

#[test]
fn other_files_are_named() {
    let cases: [(&[u8], &str); 9] = [
        (b"", "is an empty file, not a checkpoint"),
        (b"\n<!DOCTYPE html><html>", "is a web page, not a checkpoint"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "is a Git LFS pointer, not a checkpoint",
        ),
        (b"\x1f\x8b\x08\x00", "is a gzip archive, not a checkpoint"),
        (b"hello, world", "is an unknown kind of file, not a checkpoint"),
        (
            b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
            "is in PyTorch's old format from before version 1.6",
        ),
        (b"PK\x03\x04", "is truncated: its zip directory is not at its end (4 bytes are there)"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "does not"),
        (
            b"\x40\x00\x00\x00\x00\x00\x00\x00{\"a\":",
            "is truncated: it ends inside its header (13 bytes are there)",
        ),
    ];
    for (content, said) in cases {
        match load_bytes("bad.pth", content.to_vec()) {
            Err(error) => assert!(error.to_string().contains(said), "{error}"),
            // A safetensors file without tensors is valid, and fits no model.
            Ok(checkpoint) => {
                let expected = [("w".to_owned(), vec![1])];
                let error =
                    checkpoint.weights.verify(&expected, |_| false).expect_err("it is empty").to_string();
                assert!(error.starts_with("`bad.pth` does not fit") && error.contains(said), "{error}");
            }
        }
    }
    type Entries<'a> = &'a [(&'a str, &'a [u8])];
    let zips: [(Entries, &str); 4] = [
        (&[("word/document.xml", b"")], "is a zip file without a PyTorch `data.pkl`"),
        (&[("data.pkl", b"\x80\x02}."), ("constants.pkl", b"")], "is a TorchScript program"),
        (&[("data.pkl", b"\x80\x02}."), ("byteorder", b"big")], "is in big-endian byte order"),
        (&[("data.pkl", b"\x80\x02}.")], "holds no weights"),
    ];
    for (entries, said) in zips {
        let message = error(archive(entries)).to_string();
        assert!(message.contains(said), "{message}");
    }
    let keys = Pickle::new().op(b"}(").text("epoch").op(b"K\x01").text("net").op(b"}u").stop();
    assert!(pickle_error(keys).to_string().contains("found `epoch`, `net`; save the model's state_dict"));
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let message = |path: &std::path::Path| checkpoint::load(path).expect_err("is no file").to_string();
    assert!(message(folder.path()).contains("is a folder without weights of Hugging Face, not a checkpoint"));
    assert!(message(&folder.path().join("none.pth")).starts_with("cannot read the checkpoint"));
}
