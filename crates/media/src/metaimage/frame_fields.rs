//! The fields of single frames: `Seq_Frame0012_…`.

use std::collections::HashMap;

use ultramotion_types::NamedTransform;

use crate::sequence::FrameFields;

/// Transforms of a frame that are looked through one by one; where there are more, they are found by an index.
const FEW_TRANSFORMS: usize = 64;

/// Where the transforms of a frame are, by name; empty while it has few.
pub(super) type Index = HashMap<String, usize>;

pub(super) fn keep_frame_field((fields, index): (&mut FrameFields, &mut Index), name: &str, value: &str) {
    if name == "Timestamp" {
        fields.timestamp_s = value.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    } else if name == "ElementSpacing" {
        fields.spacing_mm = parse_spacing(value);
    } else if name == "ImageStatus" {
        fields.image_status = Some(value.to_owned());
    } else if let Some(name) = name.strip_suffix("TransformStatus") {
        transform_named(fields, index, name).valid &= value == "OK";
    } else if let Some(name) = name.strip_suffix("Transform") {
        let transform = transform_named(fields, index, name);
        match parse_matrix(value) {
            Some(matrix) => transform.matrix = matrix,
            None => transform.valid = false,
        }
    }
}

/// The transform of that name, made valid and identity when it is new: matrix and status come in any order.
fn transform_named<'a>(fields: &'a mut FrameFields, index: &mut Index, name: &str) -> &'a mut NamedTransform {
    let transforms = &mut fields.transforms;
    let count = transforms.len();
    let place = if count <= FEW_TRANSFORMS {
        transforms.iter().position(|transform| transform.name == name)
    } else {
        if index.is_empty() {
            index.extend(transforms.iter().enumerate().map(|(at, transform)| (transform.name.clone(), at)));
        }
        index.get(name).copied()
    };
    let place = place.unwrap_or_else(|| {
        let matrix = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
        transforms.push(NamedTransform { name: name.to_owned(), matrix, valid: true });
        if count > FEW_TRANSFORMS {
            index.insert(name.to_owned(), count);
        }
        count
    });
    &mut transforms[place]
}

fn parse_matrix(text: &str) -> Option<[[f64; 4]; 4]> {
    let mut matrix = [[0.0; 4]; 4];
    let mut numbers = text.split_whitespace();
    for value in matrix.iter_mut().flatten() {
        *value = numbers.next()?.parse().ok().filter(|number: &f64| number.is_finite())?;
    }
    numbers.next().is_none().then_some(matrix)
}

/// Width and height of a pixel. A negative one says that an axis is turned (ITK takes it so too); its size is without the sign.
pub(super) fn parse_spacing(text: &str) -> Option<[f64; 2]> {
    let numbers: Option<Vec<f64>> = text.split_whitespace().map(|number| number.parse().ok()).collect();
    let sizes: Vec<f64> = numbers?.iter().map(|mm| mm.abs()).collect();
    let &[x, y, ..] = sizes.as_slice() else { return None };
    [x, y].iter().all(|mm| mm.is_finite() && *mm > 0.0).then_some([x, y])
}
