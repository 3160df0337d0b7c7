//! Which variant of a product's kernel: the size of a block's tile, and into how many parts K is split.
//!
//! Choices that were measured stand in `measured_tiles.txt` and in the file that `ULTRAMOTION_TILES` names; what is in
//! neither follows a rule. [`tune`](fn@crate::tune) measures.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::launch::abi::{Operand, element};

/// Blocks that keep a large GPU busy: one for each multiprocessor of an H100.
const BUSY_BLOCKS: u32 = 132;
/// Most parts that K is split into, and least slices of a part by the rule.
const MAX_SPLITS: u32 = 16;
const MIN_SLICES: u32 = 6;

/// A variant of the kernels: a block computes `rows` x `cols` of the result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub rows: u32,
    pub cols: u32,
    pub threads: u32,
    /// Kernel for A as matrix rows and as windows, both with B as `[N, K]`, and for matrix rows with B as `[K, N]`.
    pub kernels: [Option<&'static str>; 3],
    /// Slices of K that are under way, where it is not as many as the type has.
    pub stages: Option<u32>,
}

/// What A and B are; positions in [`Tile::kernels`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// Rows of a matrix, with rows of another.
    Rows = 0,
    /// Windows of a map, with rows of a matrix.
    Windows = 1,
    /// Rows of a matrix, with columns of another.
    Columns = 2,
}

const FORMS: [(Form, &str); 3] =
    [(Form::Rows, "rows"), (Form::Windows, "windows"), (Form::Columns, "columns")];

/// Largest first.
static F16_TILES: [Tile; 5] = [
    tile([128, 128], 256, [Some("gemm_f16_128x128"), Some("conv_f16_128x128"), None]),
    tile([128, 64], 128, [Some("gemm_f16_128x64"), Some("conv_f16_128x64"), Some("matmul_f16_128x64")]),
    tile([64, 64], 128, [Some("gemm_f16_64x64"), Some("conv_f16_64x64"), None]),
    tile([128, 32], 128, [Some("gemm_f16_128x32"), Some("conv_f16_128x32"), None]),
    tile([32, 64], 128, [Some("gemm_f16_32x64"), Some("conv_f16_32x64"), Some("matmul_f16_32x64")]),
];
static F32_TILES: [Tile; 3] = [
    tile([128, 64], 256, [Some("gemm_f32_128x64"), Some("conv_f32_128x64"), None]),
    tile([64, 64], 256, [Some("gemm_f32_64x64"), Some("conv_f32_64x64"), Some("matmul_f32_64x64")]),
    tile([32, 32], 128, [Some("gemm_f32_32x32"), Some("conv_f32_32x32"), Some("matmul_f32_32x32")]),
];

/// As wide as rows of which the layer norm is computed, in f16.
pub(super) static NORMED_TILES: [Tile; 2] = [
    Tile { stages: Some(3), ..tile([64, 256], 256, [Some("gemm_f16_64x256_norm"), None, None]) },
    tile([128, 64], 128, [Some("gemm_f16_128x64_norm"), None, None]),
];

const fn tile([rows, cols]: [u32; 2], threads: u32, kernels: [Option<&'static str>; 3]) -> Tile {
    Tile { rows, cols, threads, kernels, stages: None }
}

impl Tile {
    pub(super) fn kernel(&self, form: Form) -> Option<&'static str> {
        self.kernels[form as usize]
    }
    pub(super) fn blocks(&self, m: u32, n: u32) -> u32 {
        m.div_ceil(self.rows) * n.div_ceil(self.cols)
    }
}

/// What the element type decides: f16 slices of K are 32 long and four are under way, f32 ones 16 and three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pipeline {
    pub half: bool,
}

impl Pipeline {
    /// Elements of K that come to shared memory at a time.
    pub(super) fn slice(self) -> u32 {
        if self.half { 32 } else { 16 }
    }
    /// Elements of 16 bytes.
    pub(super) fn chunk(self) -> u32 {
        if self.half { 8 } else { 4 }
    }
    pub(super) fn tiles(self) -> &'static [Tile] {
        if self.half { &F16_TILES } else { &F32_TILES }
    }
    /// Shared memory of a block: the slices that are under way, a chunk between rows.
    pub(super) fn shared_bytes(self, tile: &Tile, form: Form) -> u32 {
        let (chunk, slice) = (self.chunk(), self.slice());
        let b = if form == Form::Columns { slice * (tile.cols + chunk) } else { tile.cols * (slice + chunk) };
        let (stages, size) = if self.half { (4, 2) } else { (3, 4) };
        tile.stages.unwrap_or(stages) * size * (tile.rows * (slice + chunk) + b)
    }
    /// How many elements of `o` a copy may take at once: 16 bytes where rows are made of them, 4 bytes, or 0 for one by one with
    /// conversion.
    pub(super) fn width(self, o: &Operand) -> u32 {
        let narrow = o.element == element::F16;
        if narrow != self.half || (!narrow && o.element != element::F32) {
            return 0;
        }
        let piece = self.chunk() / 4;
        let fits = |elements: u32| {
            o.data.is_multiple_of(u64::from(elements * o.element_bytes()))
                && (o.pitch.is_multiple_of(elements) || o.rows <= 1)
                && (elements == piece || o.cols.is_multiple_of(elements))
        };
        [self.chunk(), piece].into_iter().find(|&w| fits(w)).unwrap_or(0)
    }
}

/// What a choice depends on: sizes of one product of a batch, K without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sizes {
    pub pipeline: Pipeline,
    pub form: Form,
    pub entries: u32,
    pub m: u32,
    pub n: u32,
    pub k: u32,
}

/// A tile, and into how many parts K is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub tile: &'static Tile,
    pub splits: u32,
}

thread_local! {
    /// While [`tune`](fn@crate::tune) measures on this thread: which of its candidates each product takes.
    static CANDIDATE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Runs `body` with every product taking candidate number `index`, or its last one.
pub(crate) fn with_candidate<R>(index: usize, body: impl FnOnce() -> R) -> R {
    CANDIDATE.set(Some(index));
    let result = body();
    CANDIDATE.set(None);
    result
}

impl Sizes {
    /// What to use: measured, or by the rule.
    pub(super) fn choose(self) -> Choice {
        if let Some(index) = CANDIDATE.get() {
            let candidates = self.candidates();
            return candidates[index.min(candidates.len() - 1)];
        }
        measured().get(&self).copied().unwrap_or_else(|| self.by_rule())
    }

    fn usable(self) -> impl DoubleEndedIterator<Item = &'static Tile> {
        self.pipeline.tiles().iter().filter(move |t| t.kernel(self.form).is_some())
    }

    /// The largest tile of which there are enough blocks to keep a GPU busy and that is not mostly beyond the last
    /// column; if there is none, the smallest, of which there are most. Then as many parts of K as blocks are missing,
    /// each with something to do.
    fn by_rule(self) -> Choice {
        let Sizes { entries, m, n, .. } = self;
        let fits = |t: &&Tile| t.cols <= 32 || n > t.cols / 2 || self.form == Form::Columns;
        let busy = self.usable().filter(fits).find(|t| t.blocks(m, n) * entries >= BUSY_BLOCKS);
        let tile = busy.or_else(|| self.usable().next_back()).expect("every form has a tile");
        let wanted = BUSY_BLOCKS / tile.blocks(m, n).max(1);
        let splits = if entries > 1 { 1 } else { wanted.min(self.slices() / MIN_SLICES) };
        Choice { tile, splits: splits.clamp(1, MAX_SPLITS) }
    }

    fn slices(self) -> u32 {
        self.k.div_ceil(self.pipeline.slice())
    }

    /// Everything worth a try, the rule's choice first.
    pub(super) fn candidates(self) -> Vec<Choice> {
        let mut all = vec![self.by_rule()];
        for tile in self.usable() {
            for splits in [1, 2, 3, 4, 6, 8, 12, MAX_SPLITS] {
                let choice = Choice { tile, splits };
                let enough = splits == 1
                    || self.entries == 1
                        && self.slices() / splits >= 2
                        && tile.blocks(self.m, self.n) * splits <= 4 * BUSY_BLOCKS;
                if enough && !all.contains(&choice) {
                    all.push(choice);
                }
            }
        }
        all
    }

    /// Elements of f32 that partial sums take; 0 where K is not split.
    pub(super) fn partial_sums(self) -> usize {
        match self.choose().splits {
            1 => 0,
            splits => splits as usize * self.m as usize * self.n.next_multiple_of(8) as usize,
        }
    }

    /// A line of the file of measured choices.
    pub(super) fn line(self, choice: Choice) -> String {
        format!("{self}: {}x{} {}", choice.tile.rows, choice.tile.cols, choice.splits)
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.pipeline.half { "f16" } else { "f32" };
        let form = FORMS[self.form as usize].1;
        write!(f, "{kind} {form} {} {} {} {}", self.entries, self.m, self.n, self.k)
    }
}

impl FromStr for Sizes {
    type Err = ();
    fn from_str(text: &str) -> Result<Sizes, ()> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[kind, form, entries, m, n, k] = &words[..] else { return Err(()) };
        let half = match kind {
            "f16" => true,
            "f32" => false,
            _ => return Err(()),
        };
        let form = FORMS.iter().find(|(_, name)| *name == form).ok_or(())?.0;
        let number = |word: &str| word.parse::<u32>().map_err(|_| ());
        let [entries, m, n, k] = [number(entries)?, number(m)?, number(n)?, number(k)?];
        Ok(Sizes { pipeline: Pipeline { half }, form, entries, m, n, k })
    }
}

/// A line as [`Sizes::line`] writes it, if it names a tile that there is.
fn parse_line(line: &str) -> Option<(Sizes, Choice)> {
    let (sizes, choice) = line.split_once(": ")?;
    let sizes: Sizes = sizes.parse().ok()?;
    let (tile, splits) = choice.split_once(' ')?;
    let (rows, cols) = tile.split_once('x')?;
    let (rows, cols): (u32, u32) = (rows.parse().ok()?, cols.parse().ok()?);
    let splits: u32 = splits.trim().parse().ok()?;
    let tile = sizes.usable().find(|t| t.rows == rows && t.cols == cols)?;
    let allowed = splits == 1 || (sizes.entries == 1 && (2..=MAX_SPLITS).contains(&splits));
    allowed.then_some((sizes, Choice { tile, splits }))
}

/// Choices in a text of lines; `#` begins a comment.
fn parse(text: &str, origin: &str) -> HashMap<Sizes, Choice> {
    let mut choices = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        match parse_line(line) {
            Some((sizes, choice)) => {
                choices.insert(sizes, choice);
            }
            None => tracing::warn!(
                "{origin}, line {}: '{line}' is no choice of a tile; it is ignored",
                number + 1
            ),
        }
    }
    choices
}

fn measured() -> &'static HashMap<Sizes, Choice> {
    static MEASURED: OnceLock<HashMap<Sizes, Choice>> = OnceLock::new();
    MEASURED.get_or_init(|| {
        let mut choices = parse(include_str!("measured_tiles.txt"), "measured_tiles.txt");
        if let Ok(path) = std::env::var("ULTRAMOTION_TILES") {
            match std::fs::read_to_string(&path) {
                Ok(text) => choices.extend(parse(&text, &path)),
                Err(e) => {
                    tracing::warn!("ULTRAMOTION_TILES: cannot read {path}: {e}; tiles are chosen without it")
                }
            }
        }
        choices
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(m: u32, n: u32, k: u32) -> Sizes {
        Sizes { pipeline: Pipeline { half: true }, form: Form::Windows, entries: 1, m, n, k }
    }

    #[test]
    fn tiles_fill_a_gpu_or_are_small() {
        let choice = |m, n, k| {
            let choice = windows(m, n, k).by_rule();
            (choice.tile.rows, choice.tile.cols, choice.splits)
        };
        assert_eq!(choice(64 * 64 * 4, 320, 320), (128, 128, 1), "an image encoder's layer");
        assert_eq!(choice(160 * 160, 32, 288), (128, 32, 1), "no tile is mostly beyond the last column");
        assert_eq!(choice(20 * 20, 128, 1152), (32, 64, 5), "few pixels and many taps are split");
        assert_eq!(choice(20 * 20, 128, 64), (32, 64, 1), "a part of K has something to do");
    }

    #[test]
    fn choices_survive_the_file() {
        for half in [true, false] {
            for (form, _) in FORMS {
                for entries in [1, 3] {
                    let sizes = Sizes { pipeline: Pipeline { half }, form, entries, m: 400, n: 96, k: 1152 };
                    for choice in sizes.candidates() {
                        assert_eq!(parse_line(&sizes.line(choice)), Some((sizes, choice)));
                    }
                }
            }
        }
        let good = "f16 windows 1 400 128 1152: 32x64 4";
        assert!(parse_line(good).is_some());
        for bad in [
            "f16 windows 1 400 128 1152",
            "f16 windows 1 400 128: 32x64 4",
            "f8 windows 1 400 128 1152: 32x64 4",
            "f16 windows 1 400 128 1152: 31x64 4",
            "f16 windows 1 400 128 1152: 32x64 99",
            "f16 windows 2 400 128 1152: 32x64 4",
            "f16 columns 1 400 128 1152: 64x64 1",
            "",
        ] {
            assert!(parse_line(bad).is_none(), "'{bad}' names no choice");
        }
        let several = parse(&format!("# comment\n\n{good} # 3 us\nnonsense\n"), "test");
        assert_eq!(several.len(), 1);
    }

    #[test]
    fn measured_choices_are_whole() {
        let lines = include_str!("measured_tiles.txt").lines();
        let lines = lines.map(|l| l.split('#').next().unwrap_or("").trim()).filter(|l| !l.is_empty());
        for line in lines {
            assert!(parse_line(line).is_some(), "'{line}' names no choice");
        }
    }
}
