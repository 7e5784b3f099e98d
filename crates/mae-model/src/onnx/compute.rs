//! What the nodes of a file compute, by libtorch: to compare a file with the model that it was written from.

use std::collections::HashMap;

use prost::Message;
use tch::{Device, Kind, Tensor, no_grad};

use super::{DataLocation, DataType, Model, Node, OnnxFiles, TensorProto};
use crate::Result;
use crate::error::invalid;

impl OnnxFiles {
    /// What the files, read again, make of `input`; by the operators that graphs are made of here, and no
    /// others.
    ///
    /// # Errors
    /// [`ModelError::Config`](crate::ModelError::Config) if they are no such model, or libtorch refuses what it says.
    pub fn compute(&self, input: &Tensor) -> Result<Tensor> {
        let broken = |what: &str| invalid("onnx", what, "what was written here".into());
        let model = Model::decode(self.model.as_slice()).map_err(|e| broken(&e.to_string()))?;
        let graph = model.graph.ok_or_else(|| broken("without a graph"))?;
        let mut values = HashMap::new();
        for tensor in &graph.initializer {
            let found = self.tensor(tensor);
            let found = found.ok_or_else(|| broken(&format!("without {}", tensor.name)))?;
            values.insert(tensor.name.as_str(), found);
        }
        let names = graph.input.iter().zip(&graph.output).next();
        let (first, last) = names.ok_or_else(|| broken("without input or output"))?;
        values.insert(&first.name, input.shallow_clone());
        for node in &graph.node {
            let inputs: Option<Vec<_>> = (node.input.iter())
                .map(|name| values.get(name.as_str()))
                .collect();
            let inputs = inputs.ok_or_else(|| broken(&format!("{}: no input", node.name)))?;
            let result = no_grad(|| node.compute(&inputs))?;
            values.insert(&node.output[0], result);
        }
        let output = values.remove(last.name.as_str());
        output.ok_or_else(|| broken("without a result"))
    }

    /// `None` if its numbers are not there.
    fn tensor(&self, tensor: &TensorProto) -> Option<Tensor> {
        let numbers = match tensor.data_location {
            Some(place) if place == DataLocation::External as i32 => {
                let number = |key: &str| {
                    let mut pairs = tensor.external_data.iter();
                    pairs.find(|pair| pair.key == key)?.value.parse().ok()
                };
                let (offset, length): (usize, usize) = (number("offset")?, number("length")?);
                self.weights.as_ref()?.get(offset..offset + length)?
            }
            _ => tensor.raw_data.as_ref()?,
        };
        let kind = match DataType::try_from(tensor.data_type).ok()? {
            DataType::Float => Kind::Float,
            DataType::Int64 => Kind::Int64,
            DataType::Undefined => return None,
        };
        Tensor::f_from_data_size(numbers, &tensor.dims, kind).ok()
    }
}

impl Node {
    fn compute(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let list =
            |at: usize| -> Result<Vec<i64>> { Ok(Vec::try_from(inputs[at].flatten(0, -1))?) };
        let attribute = |name: &str| self.attribute.iter().find(|known| known.name == name);
        let int = |name: &str| attribute(name).and_then(|found| found.i);
        let ints = |name: &str| attribute(name).map_or(&[][..], |found| &found.ints);
        let x = inputs[0];
        Ok(match (self.op_type.as_str(), inputs) {
            ("Add", [_, y]) => x.f_add(y)?,
            ("Sub", [_, y]) => x.f_sub(y)?,
            ("Mul", [_, y]) => x.f_mul(y)?,
            ("Div", [_, y]) => x.f_div(y)?,
            ("MatMul", [_, y]) => x.f_matmul(y)?,
            ("Erf", [_]) => x.f_erf()?,
            ("IsNaN", [_]) => x.f_isnan()?,
            ("Where", [_, y, z]) => y.f_where_self(x, z)?,
            ("Softmax", [_]) => x.f_softmax(int("axis").unwrap_or(-1), None::<Kind>)?,
            ("Transpose", [_]) => x.f_permute(ints("perm"))?,
            ("Conv", [_, weight, bias]) => {
                let (strides, zeros) = (ints("strides"), [0, 0]);
                x.f_conv2d(weight, Some(*bias), strides, &zeros[..], &[1, 1][..], 1)?
            }
            ("Reshape", [_, _]) => {
                // A zero is the size that it was.
                let sizes = list(1)?.into_iter().enumerate();
                let sizes: Vec<_> = sizes
                    .map(|(dim, n)| if n == 0 { x.size()[dim] } else { n })
                    .collect();
                x.f_reshape(&sizes)?
            }
            ("Pad", [_, _]) => {
                // All beginnings, then all ends; libtorch has pairs from the last dimension on.
                let pads = list(1)?;
                let half = pads.len() / 2;
                let pairs: Vec<_> = (0..half)
                    .rev()
                    .flat_map(|dim| [pads[dim], pads[half + dim]])
                    .collect();
                x.f_constant_pad_nd(&pairs)?
            }
            ("Gather", [_, index]) => {
                x.f_select(int("axis").unwrap_or(0), index.f_int64_value(&[])?)?
            }
            ("Slice", [_, _, _, _]) => {
                let (start, end, dim) = (list(1)?[0], list(2)?[0], list(3)?[0]);
                x.f_slice(dim, start, end, 1)?
            }
            ("ReduceMean", [_]) => {
                x.f_mean_dim(ints("axes"), int("keepdims") != Some(0), None::<Kind>)?
            }
            ("LayerNormalization", [_, weight, bias]) => {
                let eps = attribute("epsilon").and_then(|found| found.f);
                let eps = f64::from(eps.unwrap_or(1e-5));
                x.f_layer_norm(weight.size(), Some(*weight), Some(*bias), eps, false)?
            }
            (operator, _) => {
                let expected = "an operator of a ViT with its inputs".into();
                return Err(invalid(
                    "onnx",
                    format!("{}: {operator}", self.name),
                    expected,
                ));
            }
        }
        .to_device(Device::Cpu))
    }
}
