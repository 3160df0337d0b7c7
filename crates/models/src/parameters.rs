//! How a model asks for its parameters while its graph is built.
//!
//! A builder names each parameter with the shape it expects. What is missing or mis-shaped is collected rather than
//! reported one at a time, so a wrong checkpoint gets one error that says all of it. The same builder, run with
//! [`Parameters::describe`], lists what a model needs.

use std::collections::BTreeSet;

use ultramotion_engine::graph::{Graph, Tensor};
use ultramotion_engine::tensor::HostTensor;

use crate::checkpoint::error::{Mismatch, Misshaped};
use crate::checkpoint::weights::Weights;

/// Why a network cannot be built as wanted: a sentence of that network's own.
pub type ConfigError = Box<dyn std::error::Error + Send + Sync>;

/// Named float tensors, e.g. a checkpoint.
pub trait ParameterSource {
    /// Shape and row-major values of a parameter.
    fn parameter(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)>;
    /// Every name it holds.
    fn names(&self) -> Vec<String>;
    /// The file, or what else the parameters come from; for messages.
    fn origin(&self) -> &str;
}

impl ParameterSource for Weights {
    fn parameter(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        self.get(name).map(|tensor| (tensor.shape().to_vec(), tensor.to_f32()))
    }
    fn names(&self) -> Vec<String> {
        self.iter().map(|(name, _)| name.to_owned()).collect()
    }
    fn origin(&self) -> &str {
        Weights::origin(self)
    }
}

/// Name and shape of a parameter, in the official layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Name in the official checkpoint.
    pub name: String,
    /// Shape in the official checkpoint.
    pub shape: Vec<usize>,
}

/// Hands parameters to a graph builder and keeps account.
pub struct Parameters<'s> {
    source: Option<&'s dyn ParameterSource>,
    prefix: Vec<String>,
    asked: Vec<ParameterSpec>,
    mismatch: Mismatch,
}

impl<'s> Parameters<'s> {
    /// Parameters from a source.
    pub fn new(source: &'s dyn ParameterSource) -> Self {
        Parameters { source: Some(source), ..Self::describe() }
    }

    /// No source: every parameter is zero, and [`Parameters::specs`] tells afterwards what was asked for.
    pub fn describe() -> Self {
        Parameters { source: None, prefix: Vec::new(), asked: Vec::new(), mismatch: Mismatch::default() }
    }

    /// Runs `body` with `name` appended to the dotted prefix of every parameter.
    pub fn scoped<R>(&mut self, name: impl Into<String>, body: impl FnOnce(&mut Self) -> R) -> R {
        self.prefix.push(name.into());
        let result = body(self);
        self.prefix.pop();
        result
    }

    /// The values of `prefix.name`, row-major in the official shape; zeros when it is missing or mis-shaped.
    pub fn values(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        let name = self.prefix.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".");
        let found = self.source.and_then(|s| s.parameter(&name));
        let values = match found {
            Some((actual, values)) if actual == shape => Some(values),
            Some((actual, _)) => {
                let (name, expected) = (name.clone(), shape.to_vec());
                self.mismatch.misshaped.push(Misshaped { name, expected, found: actual });
                None
            }
            None => {
                if self.source.is_some() {
                    self.mismatch.missing.push(name.clone());
                }
                None
            }
        };
        self.asked.push(ParameterSpec { name, shape: shape.to_vec() });
        values.unwrap_or_else(|| vec![0.0; shape.iter().product()])
    }

    /// As [`Parameters::values`], for a parameter that a checkpoint may leave out.
    pub fn optional(&mut self, name: &str, shape: &[usize]) -> Option<Vec<f32>> {
        let full = self.prefix.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".");
        if self.source.is_some_and(|s| s.parameter(&full).is_some()) {
            return Some(self.values(name, shape));
        }
        self.asked.push(ParameterSpec { name: full, shape: shape.to_vec() });
        None
    }

    /// The parameter as a constant of the graph.
    pub fn constant(&mut self, g: &mut Graph, name: &str, shape: &[usize]) -> Tensor {
        let values = self.values(name, shape);
        g.constant(HostTensor::f32(shape, values))
    }

    /// What was asked for so far, in order.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.asked
    }

    /// One error for everything that did not fit. `unused` says which names of the source may go unread
    /// (`num_batches_tracked`, training-only heads).
    pub fn finish(mut self, unused: impl Fn(&str) -> bool) -> Result<Vec<ParameterSpec>, Box<Mismatch>> {
        if let Some(source) = self.source {
            self.mismatch.origin = source.origin().to_owned();
            self.mismatch.expected_count = self.asked.len();
            let asked: BTreeSet<&str> = self.asked.iter().map(|s| s.name.as_str()).collect();
            self.mismatch.unexpected =
                source.names().into_iter().filter(|n| !asked.contains(n.as_str()) && !unused(n)).collect();
        }
        if self.mismatch.is_empty() { Ok(self.asked) } else { Err(Box::new(self.mismatch)) }
    }
}
