//! Deterministic weights by rule: a network can be compared with another implementation of it without a checkpoint.
//!
//! The rule gives every element from `(salt, tensor name, row-major index)` alone, so any language reproduces it:
//!
//! * `seed = fnv1a64(salt + "/" + name)`; `z = splitmix64(seed + (i + 1) · 0x9E3779B97F4A7C15)`;
//!   `v = (z >> 40) / 2²⁴ · 2 − 1`, in [−1, 1);
//! * names ending in `running_var`: `1 + 0.5 v`; in `running_mean`: `0.1 v`;
//! * two or more dimensions: `v · gain · √(3 / fan)` with `fan = numel / shape[0]` (variance `gain² / fan`);
//! * otherwise names ending in `weight` or `scale`, and single elements: `1 + 0.2 v`; all others: `0.1 v`;
//! * `num_batches_tracked` is the integer 0.
//!
//! Hash: FNV-1a, 64 bits (Fowler, Noll, Vo). Mixer: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).

use super::error::CheckpointError;
use super::weights::{Dtype, WeightTensor, Weights, checked_numel};

/// Fills every tensor of `keys` (name, shape) by the rule, except those for which `keep` gives a value:
/// buffers and constants whose value the network's constructor fixes (`decoder.anchors`, `pixel_mean`).
///
/// `gain` 1 keeps activations near unit variance through linear layers.
///
/// # Errors
/// [`CheckpointError::WrongLength`] if a shape has more elements than can be addressed.
///
/// ```
/// use ultramotion_models::checkpoint::{WeightTensor, filled};
///
/// let keys = [("conv.weight".to_owned(), vec![8, 4]), ("up".to_owned(), vec![1])];
/// let half = WeightTensor::from_f32("up", &[1], &[0.5])?;
/// let weights = filled(&keys, "reference", 1.0, |name| (name == "up").then(|| half.clone()))?;
/// assert_eq!(weights.f32("up")?.0, [0.5]);
/// # Ok::<(), ultramotion_models::checkpoint::CheckpointError>(())
/// ```
pub fn filled(
    keys: &[(String, Vec<usize>)],
    salt: &str,
    gain: f64,
    keep: impl Fn(&str) -> Option<WeightTensor>,
) -> Result<Weights, CheckpointError> {
    let mut weights = Weights::new(format!("the set of weights filled with salt `{salt}`"));
    for (name, shape) in keys {
        let tensor = match keep(name) {
            Some(tensor) => tensor,
            None if name.ends_with("num_batches_tracked") => {
                let numel = checked_numel(shape).unwrap_or(0);
                WeightTensor::from_bytes(name, Dtype::I64, shape, vec![0; 8 * numel])?
            }
            None => WeightTensor::from_f32(name, shape, &values(name, shape, salt, gain))?,
        };
        weights.insert(name.clone(), tensor);
    }
    Ok(weights)
}

/// The elements of one tensor.
fn values(name: &str, shape: &[usize], salt: &str, gain: f64) -> Vec<f32> {
    let numel = checked_numel(shape).unwrap_or(0);
    let (offset, scale) = if name.ends_with("running_var") {
        (1.0, 0.5)
    } else if name.ends_with("running_mean") {
        (0.0, 0.1)
    } else if shape.len() >= 2 {
        let fan = numel / shape[0].max(1);
        (0.0, gain * (3.0 / fan as f64).sqrt())
    } else if name.ends_with("weight") || name.ends_with("scale") || numel == 1 {
        (1.0, 0.2)
    } else {
        (0.0, 0.1)
    };
    let seed = fnv1a64(format!("{salt}/{name}").as_bytes());
    (1..=numel as u64).map(|i| (offset + scale * unit(seed, i)) as f32).collect()
}

/// The `i`-th number (from 1) of a seed's sequence, in [−1, 1).
fn unit(seed: u64, i: u64) -> f64 {
    let mut z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as f64 / f64::from(1 << 24) * 2.0 - 1.0
}

fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values computed with an independent implementation of the rule in Python.
    #[test]
    fn matches_the_rule_as_written_in_python() {
        let first_two = [
            ("a.running_var", vec![4], 1.0, 0.5, [-0.20704114437103271, -0.6206440925598145]),
            ("a.running_mean", vec![4], 0.0, 0.1, [-0.5152479410171509, -0.2634938955307007]),
            // fan 12, so sqrt(3 / 12) = 1/2, times a gain of 3
            ("conv.weight", vec![2, 3, 2, 2], 0.0, 1.5, [0.6732326745986938, -0.857825756072998]),
            ("bn.weight", vec![4], 1.0, 0.2, [0.06524348258972168, -0.7590500116348267]),
            ("lab.scale", vec![2], 1.0, 0.2, [-0.987567663192749, -0.11696064472198486]),
            ("bn.bias", vec![4], 0.0, 0.1, [-0.8055601119995117, -0.7579232454299927]),
        ];
        let mut keys: Vec<_> =
            first_two.iter().map(|(name, shape, ..)| ((*name).to_owned(), shape.clone())).collect();
        keys.push(("lab.bias".to_owned(), vec![1]));
        keys.push(("bn.num_batches_tracked".to_owned(), vec![]));
        let weights = filled(&keys, "reference", 3.0, |_| None).expect("shapes are small");
        for (name, shape, offset, scale, v) in first_two {
            let (values, found) = weights.f32(name).expect("was filled");
            assert_eq!(found, shape, "{name}");
            assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}");
            assert_eq!(values[..2], v.map(|v| (offset + scale * v) as f32), "{name}");
        }
        // A single element is a scale even where its name ends in `bias`.
        assert_eq!(weights.f32("lab.bias").expect("was filled").0, [(1.0 - 0.2 * 0.5632785558700562) as f32]);
        let batches = weights.get("bn.num_batches_tracked").expect("was filled");
        assert_eq!((batches.dtype(), batches.to_f32()), (Dtype::I64, vec![0.0]));
    }
}
