//! Names of tensors without what wrappers put before them.

use super::huggingface;
use super::weights::Weights;
use crate::registry::Architecture;

/// What DistributedDataParallel and torch.compile put before every name: never part of it.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];
/// What else may stand there: of Lightning, averaged models, projects of people's own. Some networks have such names themselves.
const PREFIXES: [&str; 7] = ["module.", "_orig_mod.", "model.", "ema_model.", "ema.", "sam.", "net."];
/// Prefixes that stand one behind the other.
const MAX_DEPTH: usize = 4;
/// Counts of training that stand among the weights and are none.
const COUNTERS: [&str; 2] = ["n_averaged", "num_updates"];

/// Whether a network of the table, or Hugging Face's form of one, has these names.
pub(super) fn are_known(weights: &Weights) -> bool {
    Architecture::detect(weights).is_some()
        || huggingface::is_huggingface(weights.iter().map(|(name, _)| name))
}

/// The weights without what wrappers put before their names, and without other prefixes if a known network is left then.
pub(super) fn unwrapped(weights: Weights) -> Weights {
    if are_known(&weights) {
        return weights;
    }
    let is_counter = |name: &str| COUNTERS.contains(&name.rsplit('.').next().unwrap_or(name));
    let mut inner = renamed(&weights, |name| (!is_counter(name)).then_some(name));
    while let Some(prefix) = shared(&inner, &WRAPPERS) {
        inner = renamed(&inner, |name| name.strip_prefix(prefix));
    }
    let outer = inner.clone();
    for _ in 0..MAX_DEPTH {
        if are_known(&inner) {
            return inner;
        }
        let Some(prefix) = shared(&inner, &PREFIXES) else { break };
        inner = renamed(&inner, |name| name.strip_prefix(prefix));
    }
    if are_known(&inner) { inner } else { outer }
}

/// The first of these prefixes that all names have.
fn shared<'p>(weights: &Weights, prefixes: &[&'p str]) -> Option<&'p str> {
    let all =
        |prefix: &str| weights.iter().all(|(name, _)| name.len() > prefix.len() && name.starts_with(prefix));
    prefixes.iter().copied().find(|prefix| !weights.is_empty() && all(prefix))
}

/// The tensors under other names, without those that get none.
fn renamed<'w>(weights: &'w Weights, name_of: impl Fn(&'w str) -> Option<&'w str>) -> Weights {
    let mut others = Weights::new(weights.origin());
    for (name, tensor) in weights.iter() {
        if let Some(new) = name_of(name) {
            others.insert(new, tensor.clone());
        }
    }
    others
}

/// The first names and what all of them begin with, for an error about weights that nobody knows; `None` if there are none.
pub fn described(weights: &Weights) -> Option<String> {
    let mut names = weights.iter().map(|(name, _)| name);
    let first = names.next()?;
    let common = names.fold(first, |common, name| {
        let same = common.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        common.get(..same).unwrap_or("")
    });
    // A prefix is whole up to a dot.
    let common = common.rfind('.').map_or("", |dot| &common[..=dot]);
    let first: Vec<String> = weights
        .iter()
        .take(3)
        .map(|(name, _)| format!("`{}`", super::error::quoted(name.as_bytes())))
        .collect();
    let shared = match common {
        "" => String::new(),
        prefix => format!(", all beginning with `{}`", super::error::quoted(prefix.as_bytes())),
    };
    Some(format!("tensors named {} …{shared}", first.join(", ")))
}
