//! A reader of the pickles that `torch.save` writes, which can build tensors and plain values and do nothing else.
//!
//! A pickle is a program for a stack machine that may call any Python function. This machine has no functions: the
//! few names that weights need ([`Global`]) are data here, a list of harmless ones (`argparse.Namespace`, dates,
//! paths, NumPy scalars) become [`Value::Opaque`] and every other name is refused. Opcodes are those of protocols
//! 2 to 5 (documented in CPython's `pickletools`); text opcodes of protocols 0 and 1 do not occur.
//!
//! In: the bytes of `data.pkl`. Out: a flat arena of values that refer to each other by index, so neither nesting
//! nor cycles cost stack depth. A value takes a hundred times the bytes of the opcode that makes it, so what all of them
//! take is counted, and limited by the size of the file.

use std::collections::HashMap;

use super::error::quoted;
use super::weights::Dtype;

/// Longer pickles are refused. The largest model's tensors take under 1 MiB; long histories of a training stand beside them in some files.
const MAX_PICKLE_BYTES: usize = 256 << 20;
/// What values may take beside as many bytes as the file has; those of a training checkpoint take a tenth of its file.
const FREE_BYTES: usize = 16 << 20;
/// Tensors of more dimensions are refused.
const MAX_DIMENSIONS: usize = 8;

/// Index of a value in its [`Pickle`].
pub(super) type Id = usize;

/// What a pickle describes.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// Pairs in order of insertion; a later pair of the same key replaces an earlier one.
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage<'a>),
    Tensor(TensorRef<'a>),
    /// Something tolerated and not looked into.
    Opaque,
}

/// The Python names that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    /// The type of `torch.__version__`: a text.
    Version,
    Storage(Dtype),
    Opaque,
}

/// A typed block of elements, kept in an archive entry of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) dtype: Dtype,
    /// Name of the entry in the archive's `data/` folder.
    pub(super) key: &'a str,
    pub(super) numel: usize,
}

/// A strided view of a storage; offset and strides in elements.
#[derive(Debug, Clone)]
pub(super) struct TensorRef<'a> {
    pub(super) storage: Storage<'a>,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// Why a pickle was not read, without its path.
#[derive(Debug)]
pub(super) enum PickleError {
    Truncated,
    Damaged { at: usize, what: &'static str },
    Unsupported(String),
    Refused(String),
}

/// A pickle that has been read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id]
    }

    pub(super) fn root(&self) -> &Value<'a> {
        self.get(self.root)
    }

    /// The value of a text key in a dictionary.
    pub(super) fn entry(&self, dict: &Value<'a>, key: &str) -> Option<&Value<'a>> {
        let Value::Dict(pairs) = dict else { return None };
        let found = pairs.iter().rev().find(|(k, _)| matches!(self.get(*k), Value::Text(t) if *t == key))?;
        Some(self.get(found.1))
    }

    /// Reads a pickle out of a file of `file_bytes`.
    pub(super) fn read(bytes: &'a [u8], file_bytes: usize) -> Result<Self, PickleError> {
        if bytes.len() > MAX_PICKLE_BYTES {
            return Err(PickleError::Unsupported(format!("a pickle of {} MiB", bytes.len() >> 20)));
        }
        Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            budget: file_bytes.saturating_add(FREE_BYTES),
        }
        .run()
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Stack heights at which open tuples, lists and dictionaries began.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Bytes that more values may take.
    budget: usize,
}

type Step<T = ()> = Result<T, PickleError>;

impl<'a> Machine<'a> {
    fn run(mut self) -> Step<Pickle<'a>> {
        loop {
            match self.u8()? {
                b'.' => {
                    let root = self.pop()?;
                    return Ok(Pickle { values: self.values, root });
                }
                opcode => self.step(opcode)?,
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Step {
        match opcode {
            // PROTO; FRAME is a hint for streams.
            0x80 => match self.u8()? {
                2..=5 => Ok(()),
                _ => self.damaged("a protocol other than 2 to 5"),
            },
            0x95 => self.take(8).map(|_| ()),
            b'(' => {
                self.spend(size_of::<usize>())?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            // POP, POP_MARK, DUP
            b'0' => self.pop().map(|_| ()),
            b'1' => self.pop_mark().map(|_| ()),
            b'2' => self.top().and_then(|top| self.again(top)),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            // BININT, BININT1, BININT2, LONG1, LONG4, BINFLOAT
            b'J' => self.array().and_then(|b| self.push(Value::Int(i32::from_le_bytes(b).into()))),
            b'K' => self.u8().and_then(|b| self.push(Value::Int(b.into()))),
            b'M' => self.array().and_then(|b| self.push(Value::Int(u16::from_le_bytes(b).into()))),
            0x8A => self.u8().and_then(|len| self.long(len.into())),
            0x8B => self.len32().and_then(|len| self.long(len)),
            b'G' => self.array().and_then(|b| self.push(Value::Float(f64::from_be_bytes(b)))),
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8C => self.u8().and_then(|len| self.text(len.into())),
            b'X' => self.len32().and_then(|len| self.text(len)),
            0x8D => self.len64().and_then(|len| self.text(len)),
            // SHORT_BINBYTES and SHORT_BINSTRING, BINBYTES and BINSTRING, BINBYTES8, BYTEARRAY8
            b'C' | b'U' => self.u8().and_then(|len| self.opaque_bytes(len.into())),
            b'B' | b'T' => self.len32().and_then(|len| self.opaque_bytes(len)),
            0x8E | 0x96 => self.len64().and_then(|len| self.opaque_bytes(len)),
            // Containers
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x8F => self.push(Value::Opaque),
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push(Value::Tuple(items))
            }
            b't' => self.pop_mark().and_then(|items| self.push(Value::Tuple(items))),
            b'a' => self.pop_many(1).and_then(|items| self.extend_list(&items)),
            b'e' => self.pop_mark().and_then(|items| self.extend_list(&items)),
            b's' => self.pop_many(2).and_then(|items| self.extend_dict(&items)),
            b'u' => self.pop_mark().and_then(|items| self.extend_dict(&items)),
            // ADDITEMS, FROZENSET
            0x90 => self.pop_mark().map(|_| ()),
            0x91 => self.pop_mark().and_then(|_| self.push(Value::Opaque)),
            // Memo: BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' => self.u8().and_then(|index| self.memoize(index.into())),
            b'r' => self.len32().and_then(|index| self.memoize(index as u64)),
            0x94 => self.memoize(self.memo.len() as u64),
            b'h' => self.u8().and_then(|index| self.recall(index.into())),
            b'j' => self.len32().and_then(|index| self.recall(index as u64)),
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(global(module, name)?))
            }
            0x93 => {
                let names = self.pop_many(2)?;
                match (&self.values[names[0]], &self.values[names[1]]) {
                    (&Value::Text(module), &Value::Text(name)) => {
                        self.push(Value::Global(global(module, name)?))
                    }
                    _ => self.damaged("a global whose name is not text"),
                }
            }
            // REDUCE and NEWOBJ call their first operand with the second; NEWOBJ_EX has keyword arguments as well.
            b'R' | 0x81 => self.pop_many(2).and_then(|call| self.call(call[0], call[1])),
            0x92 => self.pop_many(3).and_then(|call| self.call(call[0], call[1])),
            // BUILD sets attributes (a state_dict's `_metadata`), which say nothing about weights.
            b'b' => self.pop_many(1).and_then(|_| self.top()).map(|_| ()),
            b'Q' => self.pop().and_then(|id| self.persistent(id)),
            _ => self.damaged("an opcode that torch.save does not write"),
        }
    }

    fn damaged<T>(&self, what: &'static str) -> Step<T> {
        Err(PickleError::Damaged { at: self.at, what })
    }

    fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(len).ok_or(PickleError::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(PickleError::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        self.take(N)?.first_chunk::<N>().copied().ok_or(PickleError::Truncated)
    }

    fn u8(&mut self) -> Step<u8> {
        self.array::<1>().map(|[b]| b)
    }

    fn len32(&mut self) -> Step<usize> {
        self.array().map(|b| u32::from_le_bytes(b) as usize)
    }

    fn len64(&mut self) -> Step<usize> {
        let len = u64::from_le_bytes(self.array()?);
        usize::try_from(len).map_err(|_| PickleError::Truncated)
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&b| b == b'\n').ok_or(PickleError::Truncated)?;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).or_else(|_| self.damaged("a name that is not UTF-8"))
    }

    /// Counts memory, before it is taken.
    fn spend(&mut self, bytes: usize) -> Step {
        let Some(rest) = self.budget.checked_sub(bytes) else {
            let what = "one whose `data.pkl` makes more values than a file of its size needs";
            return Err(PickleError::Unsupported(what.into()));
        };
        self.budget = rest;
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) -> Step {
        let held = match &value {
            Value::Tuple(ids) | Value::List(ids) => size_of_val(&ids[..]),
            Value::Dict(pairs) => size_of_val(&pairs[..]),
            Value::Tensor(tensor) => size_of_val(&tensor.shape[..]) + size_of_val(&tensor.strides[..]),
            _ => 0,
        };
        self.spend(size_of::<Value<'_>>() + held)?;
        self.values.push(value);
        self.again(self.values.len() - 1)
    }

    /// Puts a value that is there on the stack.
    fn again(&mut self, id: Id) -> Step {
        self.spend(size_of::<Id>())?;
        self.stack.push(id);
        Ok(())
    }

    /// Height below which the innermost open container may not pop.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop_many(&mut self, count: usize) -> Step<Vec<Id>> {
        match self.stack.len().checked_sub(count) {
            Some(height) if height >= self.floor() => Ok(self.stack.split_off(height)),
            _ => self.damaged("an operand missing on the stack"),
        }
    }

    fn pop(&mut self) -> Step<Id> {
        self.pop_many(1).map(|ids| ids[0])
    }

    fn top(&self) -> Step<Id> {
        match self.stack.last() {
            Some(&id) if self.stack.len() > self.floor() => Ok(id),
            _ => self.damaged("an operand missing on the stack"),
        }
    }

    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => self.damaged("the end of a container that did not begin"),
        }
    }

    fn memoize(&mut self, index: u64) -> Step {
        let top = self.top()?;
        self.spend(size_of::<(u64, Id)>())?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Step {
        match self.memo.get(&index) {
            Some(&id) => self.again(id),
            None => self.damaged("a reference to a value not seen before"),
        }
    }

    /// A two's complement integer of any length; those beyond 64 bits are not looked into.
    fn long(&mut self, len: usize) -> Step {
        let bytes = self.take(len)?;
        if len > 8 {
            return self.push(Value::Opaque);
        }
        let mut wide = [if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xFF } else { 0 }; 8];
        wide[..len].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, len: usize) -> Step {
        let bytes = self.take(len)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => self.push(Value::Text(text)),
            Err(_) => self.damaged("text that is not UTF-8"),
        }
    }

    fn opaque_bytes(&mut self, len: usize) -> Step {
        self.take(len)?;
        self.push(Value::Opaque)
    }

    fn extend_list(&mut self, items: &[Id]) -> Step {
        self.spend(size_of_val(items))?;
        let top = self.top()?;
        match &mut self.values[top] {
            Value::List(list) => list.extend_from_slice(items),
            Value::Opaque => {}
            _ => return self.damaged("items for something that is not a list"),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Step {
        self.spend(size_of_val(items))?;
        let top = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match &mut self.values[top] {
            Value::Dict(dict) if rest.is_empty() => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)))
            }
            Value::Opaque => {}
            _ => return self.damaged("pairs for something that is not a dictionary"),
        }
        Ok(())
    }

    /// What a call of a known name gives. Nothing is called.
    fn call(&mut self, callable: Id, arguments: Id) -> Step {
        let Value::Global(global) = self.values[callable] else {
            return self.damaged("a call of something that is not a function");
        };
        let Value::Tuple(arguments) = &self.values[arguments] else {
            return self.damaged("a call without a tuple of arguments");
        };
        match global {
            Global::Opaque => self.push(Value::Opaque),
            Global::OrderedDict if arguments.is_empty() => self.push(Value::Dict(Vec::new())),
            // A dictionary made from a list of pairs is not how torch.save writes a state_dict.
            Global::OrderedDict => self.push(Value::Opaque),
            Global::RebuildParameter | Global::Size | Global::Version => match arguments.first() {
                Some(&id) => self.again(id),
                None => self.damaged("a parameter or size without a value"),
            },
            Global::RebuildTensor => match self.tensor(arguments) {
                Some(tensor) => self.push(Value::Tensor(tensor)),
                None => self.damaged("a tensor whose storage, shape or strides are not understood"),
            },
            Global::Storage(_) => self.damaged("a storage made by a call"),
        }
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, …)`; the rest is about gradients.
    fn tensor(&self, arguments: &[Id]) -> Option<TensorRef<'a>> {
        let [storage, offset, shape, strides, ..] = *arguments else { return None };
        let Value::Storage(storage) = self.values[storage] else { return None };
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        (shape.len() == strides.len()).then_some(TensorRef {
            storage,
            offset: self.size(offset)?,
            shape,
            strides,
        })
    }

    fn size(&self, id: Id) -> Option<usize> {
        match self.values[id] {
            Value::Int(n) => usize::try_from(n).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        match &self.values[id] {
            Value::Tuple(ids) | Value::List(ids) if ids.len() <= MAX_DIMENSIONS => {
                ids.iter().map(|&id| self.size(id)).collect()
            }
            _ => None,
        }
    }

    /// `("storage", type, key, device, number of elements)`.
    fn persistent(&mut self, id: Id) -> Step {
        let storage = match &self.values[id] {
            Value::Tuple(ids) => match ids[..] {
                [kind, class, key, _, numel] => {
                    match (&self.values[kind], &self.values[class], &self.values[key], self.size(numel)) {
                        (
                            Value::Text("storage"),
                            &Value::Global(Global::Storage(dtype)),
                            &Value::Text(key),
                            Some(numel),
                        ) => Some(Storage { dtype, key, numel }),
                        _ => None,
                    }
                }
                _ => None,
            },
            _ => None,
        };
        match storage {
            Some(storage) => self.push(Value::Storage(storage)),
            None => self.damaged("a persistent id that does not name a storage"),
        }
    }
}

/// What a Python name stands for, or a refusal.
fn global(module: &str, name: &str) -> Step<Global> {
    let storage = |dtype| Ok(Global::Storage(dtype));
    match (module, name) {
        ("collections", "OrderedDict") => Ok(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Ok(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            Ok(Global::RebuildParameter)
        }
        ("torch", "Size") => Ok(Global::Size),
        ("torch.torch_version", "TorchVersion") => Ok(Global::Version),
        ("torch" | "torch.storage", storage_type) if storage_type.ends_with("Storage") => {
            match storage_type {
                "FloatStorage" => storage(Dtype::F32),
                "HalfStorage" => storage(Dtype::F16),
                "BFloat16Storage" => storage(Dtype::BF16),
                "DoubleStorage" => storage(Dtype::F64),
                "LongStorage" => storage(Dtype::I64),
                "IntStorage" => storage(Dtype::I32),
                "ShortStorage" => storage(Dtype::I16),
                "CharStorage" => storage(Dtype::I8),
                "ByteStorage" => storage(Dtype::U8),
                "BoolStorage" => storage(Dtype::Bool),
                other => {
                    Err(PickleError::Unsupported(format!("one with tensors of {}", quoted(other.as_bytes()))))
                }
            }
        }
        _ if is_harmless(module, name) => Ok(Global::Opaque),
        _ => Err(PickleError::Refused(quoted(format!("{module}.{name}").as_bytes()))),
    }
}

/// Names that training scripts leave beside the weights: plain data, whose constructors do nothing but hold it.
fn is_harmless(module: &str, name: &str) -> bool {
    match module {
        "argparse" => name == "Namespace",
        "types" => name == "SimpleNamespace",
        "collections" => matches!(name, "defaultdict" | "Counter" | "deque"),
        "datetime" => matches!(name, "date" | "datetime" | "time" | "timedelta" | "timezone"),
        "pathlib" | "pathlib._local" => name.ends_with("Path"),
        "uuid" => name == "UUID",
        "decimal" => name == "Decimal",
        "_codecs" => name == "encode",
        "builtins" | "__builtin__" => {
            matches!(
                name,
                "set" | "frozenset" | "complex" | "bytearray" | "dict" | "list" | "tuple" | "range" | "slice"
            )
        }
        "numpy" => matches!(name, "dtype" | "ndarray"),
        "numpy.core.multiarray" | "numpy._core.multiarray" => matches!(name, "scalar" | "_reconstruct"),
        "numpy.dtypes" => name.ends_with("DType"),
        "torch" => {
            matches!(
                name,
                "device"
                    | "float16"
                    | "float32"
                    | "float64"
                    | "bfloat16"
                    | "uint8"
                    | "int8"
                    | "int16"
                    | "int32"
                    | "int64"
                    | "bool"
            )
        }
        _ => false,
    }
}
