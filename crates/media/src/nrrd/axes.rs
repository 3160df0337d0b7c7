//! What the axes of a NRRD array are.

use ultramotion_types::MAX_SIDE_PX;

use super::fields::Fields;
use crate::error::MediaError;

/// Axes as frames have them: the colour's or the list's may come first, then width and height, then the others.
pub(super) struct Axes {
    pub(super) sizes: Vec<u64>,
    pub(super) channels: usize,
    /// Frames whose values stand together: the size of a list that is the first axis.
    pub(super) interleaved: u64,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) frame_count: u64,
    /// Slices that are one entry of a list.
    pub(super) slices_per_entry: u64,
    pub(super) spacing_mm: Option<[f64; 2]>,
    /// Which axis counts the entries of a sequence.
    pub(super) list: Option<usize>,
    /// Its unit.
    pub(super) unit: Option<String>,
}

/// Kinds of an axis whose values belong to a pixel, with how many there are (0: as many as there are).
const COLOURS: [(&str, u64); 9] = [
    ("rgb-color", 3),
    ("hsv-color", 0),
    ("xyz-color", 0),
    ("rgba-color", 4),
    ("3-color", 3),
    ("4-color", 4),
    ("vector", 0),
    ("3-vector", 3),
    ("scalar", 1),
];

impl Axes {
    pub(super) fn of(fields: &Fields<'_>) -> Result<Self, MediaError> {
        let dimension_text = fields.required("dimension")?;
        let dimension =
            dimension_text.parse::<usize>().ok().filter(|n| (2..=5).contains(n)).ok_or_else(|| {
                fields.wrong(
                    "dimension",
                    dimension_text,
                    "is not 2 to 5: only images and sequences can be read",
                )
            })?;
        let sizes_text = fields.required("sizes")?;
        let sizes: Option<Vec<u64>> =
            sizes_text.split_whitespace().map(|size| size.parse().ok().filter(|&size| size > 0)).collect();
        let sizes = sizes.filter(|sizes| sizes.len() == dimension).ok_or_else(|| {
            fields.wrong("sizes", sizes_text, "is not as many whole numbers as there are dimensions")
        })?;
        let kinds: Vec<String> = match fields.get("kinds") {
            Some(text) => text.split_whitespace().map(str::to_ascii_lowercase).collect(),
            None => Vec::new(),
        };
        let kind = |axis: usize| kinds.get(axis).map_or("domain", String::as_str);
        let is_list = |axis: usize| matches!(kind(axis), "list" | "time");
        let colour = COLOURS.iter().find(|(name, _)| *name == kind(0)).map(|&(_, values)| values);
        // Colours are often written without a word, or as a list of three.
        let looks_like_colour = dimension > 2
            && matches!(sizes[0], 3 | 4)
            && (kinds.is_empty() || (kind(0) == "list" && !(1..dimension).any(|axis| kind(axis) == "none")))
            && fields.get("axis 0 index values").is_none();
        let (channels, interleaved) = if let Some(values) = colour {
            if !(1..=4).contains(&sizes[0])
                || (values > 0 && sizes[0] != values)
                || matches!(kind(0), "hsv-color" | "xyz-color")
            {
                let problem = "is not grey, red-green-blue or the same with transparency: convert the image";
                return Err(fields.wrong("kinds", kind(0), problem));
            }
            (sizes[0] as usize, 1)
        } else if looks_like_colour {
            (sizes[0] as usize, 1)
        } else if is_list(0) {
            (1, sizes[0])
        } else {
            (1, 1)
        };
        let first = usize::from(colour.is_some() || looks_like_colour || interleaved > 1 || is_list(0));
        let plane = &sizes[first..];
        let &[width, height, ref rest @ ..] = plane else {
            return Err(fields.wrong("sizes", sizes_text, "has no width and height beside its colours"));
        };
        let limit = 1..=MAX_SIDE_PX as u64;
        if !limit.contains(&width) || !limit.contains(&height) {
            return Err(MediaError::Size { path: fields.path.to_owned(), width, height });
        }
        let frame_count = rest
            .iter()
            .try_fold(interleaved, |product, &n| product.checked_mul(n))
            .filter(|&count| count < u64::MAX >> 32)
            .ok_or_else(|| fields.wrong("sizes", sizes_text, "gives too many frames"))?;
        let last = dimension - 1;
        let list = if interleaved > 1 || (first == 1 && is_list(0) && !looks_like_colour) {
            Some(0)
        } else {
            (first + 2..dimension).find(|&axis| is_list(axis)).or((rest.len() > 1).then_some(last)).or((rest
                .len()
                == 1
                && kinds.is_empty())
            .then_some(last))
        };
        // Slices of a volume that is one entry.
        let slices_per_entry = match list {
            Some(axis) if axis >= first + 2 => sizes[first + 2..axis].iter().product(),
            _ => 1,
        };
        let unit = fields.get("units").and_then(|text| quoted(text, list?));
        Ok(Axes {
            channels,
            interleaved,
            width: width as usize,
            height: height as usize,
            frame_count,
            slices_per_entry,
            spacing_mm: spacing(fields, first),
            list,
            unit,
            sizes,
        })
    }

    /// Frames in a file of so many of the axes.
    pub(super) fn frames_in(&self, dimensions: usize) -> u64 {
        let first = usize::from(self.channels > 1);
        self.sizes.get(first + 2..dimensions).map_or(1, |sizes| sizes.iter().product())
    }
}

/// Spacing of the axes of width and height, from `space directions` or `spacings`.
fn spacing(fields: &Fields<'_>, first: usize) -> Option<[f64; 2]> {
    let good = |mm: f64| (mm.is_finite() && mm > 0.0).then_some(mm);
    if let Some(text) = fields.get("space directions") {
        // Vectors in parentheses, and the word none for axes that are not of space.
        let spaced = text.replace('(', " (").replace("none", " none ");
        let mut rest = spaced.trim();
        let mut lengths = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("none") {
                lengths.push(None);
                rest = after.trim_start();
            } else {
                let (vector, after) = rest.strip_prefix('(')?.split_once(')')?;
                let numbers: Option<Vec<f64>> = vector.split(',').map(|n| n.trim().parse().ok()).collect();
                lengths.push(numbers.map(|v| v.iter().map(|x| x * x).sum::<f64>().sqrt()));
                rest = after.trim_start();
            }
        }
        // Axes without a direction may be left out where they come first.
        let &[x, y] = lengths.get(first..first + 2)? else { return None };
        return Some([good(x?)?, good(y?)?]);
    }
    let spacings: Vec<Option<f64>> =
        fields.get("spacings")?.split_whitespace().map(|mm| mm.parse::<f64>().ok().map(f64::abs)).collect();
    let &[x, y] = spacings.get(first..first + 2)? else { return None };
    Some([good(x?)?, good(y?)?])
}

/// The text at a place of a list in quotes.
fn quoted(text: &str, at: usize) -> Option<String> {
    text.split('"').skip(1).step_by(2).nth(at).filter(|unit| !unit.is_empty()).map(str::to_owned)
}
