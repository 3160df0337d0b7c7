//! What crosses a graph's border, by name and by typed handle.

use std::marker::PhantomData;

use super::{Graph, GraphError, Tensor};
use crate::tensor::{DType, Element, Shape};

/// A named value that crosses the graph's border.
#[derive(Debug, Clone)]
pub struct NamedTensor {
    /// Name, unique in its graph.
    pub name: String,
    /// Tensor.
    pub tensor: Tensor,
}

/// The side of what is uploaded before a run.
#[derive(Debug, Clone, Copy)]
pub struct Input;
/// The side of what is downloaded after a run.
#[derive(Debug, Clone, Copy)]
pub struct Output;

/// Handle of an input whose elements are `T`.
pub type InputPort<T> = Port<T, Input>;
/// Handle of an output whose elements are `T`.
pub type OutputPort<T> = Port<T, Output>;

/// Handle of a value of elements `T` in the [`Block`](crate::Block) of one side of a program compiled from this graph.
#[derive(Debug)]
pub struct Port<T, S> {
    pub(crate) index: usize,
    of: PhantomData<fn() -> (T, S)>,
}

impl<T, S> Clone for Port<T, S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T, S> Copy for Port<T, S> {}

impl Graph {
    /// A value uploaded before each run.
    pub fn input(
        &mut self,
        name: impl Into<String>,
        dtype: DType,
        shape: impl Into<Shape>,
    ) -> Result<Tensor, GraphError> {
        let name = self.unused_name(name.into())?;
        let tensor = self.tensor(super::TensorType { dtype, shape: shape.into(), rows: None });
        self.inputs.push(NamedTensor { name, tensor });
        Ok(tensor)
    }

    /// A value downloaded after each run.
    pub fn output(&mut self, name: impl Into<String>, tensor: Tensor) -> Result<(), GraphError> {
        let name = self.unused_name(name.into())?;
        self.outputs.push(NamedTensor { name, tensor });
        Ok(())
    }

    /// [`Graph::input`] with a handle to write it by.
    pub fn input_port<T: Element>(
        &mut self,
        name: impl Into<String>,
        shape: impl Into<Shape>,
    ) -> Result<(Tensor, InputPort<T>), GraphError> {
        let tensor = self.input(name, T::DTYPE, shape)?;
        Ok((tensor, Port { index: self.inputs.len() - 1, of: PhantomData }))
    }

    /// [`Graph::output`] with a handle to read it by; an error if the tensor's elements are of another type.
    pub fn output_port<T: Element>(
        &mut self,
        name: impl Into<String>,
        tensor: Tensor,
    ) -> Result<OutputPort<T>, GraphError> {
        let (name, dtype) = (name.into(), self.ty(tensor).dtype);
        if dtype != T::DTYPE {
            let reason = format!("the output '{name}' is {dtype}, its port {}", T::DTYPE);
            return Err(self.error("output_port", reason));
        }
        self.output(name, tensor)?;
        Ok(Port { index: self.outputs.len() - 1, of: PhantomData })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_another_type_than_its_tensor_is_an_error_of_the_graph() {
        let mut g = Graph::new("ports");
        let (x, _) = g.input_port::<i32>("x", [2]).expect("named once");
        let error = g.output_port::<f32>("y", x).expect_err("i32 is not f32");
        assert_eq!(error.to_string(), "output_port at '': the output 'y' is i32, its port f32");
        g.output_port::<i32>("y", x).expect("nothing was added before");
    }
}
