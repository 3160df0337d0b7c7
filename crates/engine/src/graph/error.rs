//! What can be wrong with a graph.

use thiserror::Error;

/// A graph that cannot be built: names the op, where it stands, and the shapes that do not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GraphError {
    /// Shapes, types or parameters of an op do not fit together.
    #[error("{op} at '{at}': {reason}")]
    Op {
        /// Operation.
        op: String,
        /// Scope in which it was added, e.g. `encoder.fpn.0`.
        at: String,
        /// One clause with the shapes concerned.
        reason: String,
    },
    /// Two inputs, states or outputs share a name.
    #[error("the name '{0}' is used twice for an input, a state or an output")]
    DuplicateName(String),
}
