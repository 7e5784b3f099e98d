//! ONNX files, written without another program: what is in them, and a graph that is put together node by node.
//!
//! [`VitClassifier::to_onnx`](crate::VitClassifier::to_onnx) says which nodes a ViT is made of;
//! [`OnnxFiles::compute`] computes what a file says, to compare it with the model.
//! The messages are the few fields in use of `onnx.proto`, by their numbers there.
//!
//! Source: the ONNX specification, intermediate representation version 8, operators of version 17;
//! <https://onnx.ai/onnx/repo-docs/IR.html>.

mod compute;

use std::collections::BTreeMap;

use prost::Message;
use tch::{Kind, Tensor};

/// Version of the representation: that of ONNX 1.12, the first with [`OPERATORS`].
const REPRESENTATION: i64 = 8;
/// Version of the operators: the first with a layer normalisation.
const OPERATORS: i64 = 17;
/// The most bytes that a protobuf message may have.
const LARGEST_MESSAGE: usize = i32::MAX as usize;

/// The content of an ONNX file, and of the file beside it that a model of 2 GB and more needs.
#[derive(Clone, Debug)]
pub struct OnnxFiles {
    /// The ONNX file.
    pub model: Vec<u8>,
    /// The weights, in the file that the model names; `None` where they are in the ONNX file.
    pub weights: Option<Vec<u8>>,
}

/// A graph in the making. A value is known by its name.
#[derive(Debug)]
pub(crate) struct Graph {
    proto: GraphProto,
}

impl Graph {
    /// A graph of one input, f32, whose first dimension is free and is called `batch`.
    pub fn new(name: &str, input: &str, size: &[i64]) -> Self {
        let proto = GraphProto {
            name: name.into(),
            input: vec![ValueInfo::new(input, size)],
            ..GraphProto::default()
        };
        Self { proto }
    }

    /// A tensor of f32 or i64 that is part of the file, under `name`; returns the name.
    ///
    /// What is asked for again is there already.
    pub fn constant(&mut self, name: &str, tensor: &Tensor) -> String {
        let constants = &mut self.proto.initializer;
        if !constants.iter().any(|known| known.name == name) {
            constants.push(TensorProto::new(name, tensor));
        }
        name.into()
    }

    /// A list of whole numbers.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.constant(name, &Tensor::from_slice(values))
    }

    /// One f32.
    pub fn number(&mut self, name: &str, value: f64) -> String {
        self.constant(name, &Tensor::from(value as f32))
    }

    /// An operation and its only result, both called `name`; returns that.
    pub fn node<const N: usize>(
        &mut self,
        name: &str,
        operator: &str,
        inputs: [&str; N],
        attributes: Vec<Attribute>,
    ) -> String {
        self.proto.node.push(Node {
            input: inputs.map(String::from).into(),
            output: vec![name.into()],
            name: name.into(),
            op_type: operator.into(),
            attribute: attributes,
        });
        name.into()
    }

    /// The files of a model that gives `output`, of the size that [`new`](Self::new) describes, with `strings` as
    /// metadata; `weights_file` is the name of the second, if there must be one.
    pub fn finish(
        mut self,
        output: &str,
        size: &[i64],
        strings: BTreeMap<&str, String>,
        weights_file: &str,
    ) -> OnnxFiles {
        self.proto.output = vec![ValueInfo::new(output, size)];
        let model = Model {
            ir_version: REPRESENTATION,
            producer_name: env!("CARGO_PKG_NAME").into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.proto),
            opset_import: vec![OperatorSet { version: OPERATORS }],
            metadata_props: (strings.into_iter())
                .map(|(key, value)| StringPair::new(key, value))
                .collect(),
        };
        model.into_files(weights_file, LARGEST_MESSAGE)
    }
}

impl Model {
    /// With the weights in a second file where this would have more than `largest` bytes.
    fn into_files(mut self, weights_file: &str, largest: usize) -> OnnxFiles {
        if self.encoded_len() <= largest {
            return OnnxFiles {
                model: self.encode_to_vec(),
                weights: None,
            };
        }
        let mut weights = Vec::new();
        let graph = self.graph.as_mut().expect("a model has a graph");
        for tensor in &mut graph.initializer {
            // Whole numbers are the sizes of shapes, which checkers want to see.
            if tensor.data_type == DataType::Float as i32 {
                tensor.move_into(&mut weights, weights_file);
            }
        }
        OnnxFiles {
            model: self.encode_to_vec(),
            weights: Some(weights),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringPair>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    // Its domain, field 1, is the empty name: ONNX's own operators.
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StringPair {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

impl StringPair {
    fn new(key: &str, value: impl ToString) -> Self {
        Self {
            key: key.into(),
            value: value.to_string(),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

/// What an operation is told beside its inputs.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    // Optional, so that a 0 is written, too.
    #[prost(float, optional, tag = "2")]
    f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    #[prost(enumeration = "AttributeType", tag = "20")]
    r#type: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
enum AttributeType {
    Undefined = 0,
    Float = 1,
    Int = 2,
    Ints = 7,
}

impl Attribute {
    pub fn float(name: &str, value: f64) -> Self {
        Self {
            name: name.into(),
            f: Some(value as f32),
            r#type: AttributeType::Float.into(),
            ..Self::default()
        }
    }

    pub fn int(name: &str, value: i64) -> Self {
        Self {
            name: name.into(),
            i: Some(value),
            r#type: AttributeType::Int.into(),
            ..Self::default()
        }
    }

    pub fn ints(name: &str, values: &[i64]) -> Self {
        Self {
            name: name.into(),
            ints: values.into(),
            r#type: AttributeType::Ints.into(),
            ..Self::default()
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(enumeration = "DataType", tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    // Little-endian.
    #[prost(bytes = "vec", optional, tag = "9")]
    raw_data: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<StringPair>,
    #[prost(enumeration = "DataLocation", optional, tag = "14")]
    data_location: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
enum DataType {
    Undefined = 0,
    Float = 1,
    Int64 = 7,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
enum DataLocation {
    Default = 0,
    External = 1,
}

impl TensorProto {
    fn new(name: &str, tensor: &Tensor) -> Self {
        let data_type = match tensor.kind() {
            Kind::Int64 => DataType::Int64,
            Kind::Float => DataType::Float,
            other => unreachable!("{name} is of {other:?}, and no such constant is made"),
        };
        let mut raw_data = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.detach().copy_data_u8(&mut raw_data, tensor.numel());
        Self {
            dims: tensor.size(),
            data_type: data_type.into(),
            name: name.into(),
            raw_data: Some(raw_data),
            ..Self::default()
        }
    }

    /// Leaves the numbers at the end of `weights`, the content of `file`.
    fn move_into(&mut self, weights: &mut Vec<u8>, file: &str) {
        /// Where numbers begin: a memory map needs a multiple of a page.
        const PAGE: usize = 4096;
        let numbers = self.raw_data.take().unwrap_or_default();
        weights.resize(weights.len().next_multiple_of(PAGE), 0);
        self.data_location = Some(DataLocation::External.into());
        self.external_data = vec![
            StringPair::new("location", file),
            StringPair::new("offset", weights.len()),
            StringPair::new("length", numbers.len()),
        ];
        weights.extend(numbers);
    }
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(enumeration = "DataType", tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(oneof = "Extent", tags = "1, 2")]
    extent: Option<Extent>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Extent {
    #[prost(int64, tag = "1")]
    Value(i64),
    #[prost(string, tag = "2")]
    Name(String),
}

impl ValueInfo {
    /// f32, `[batch, size..]`.
    fn new(name: &str, size: &[i64]) -> Self {
        let free = Extent::Name("batch".into());
        let dim = std::iter::once(free)
            .chain(size.iter().map(|&n| Extent::Value(n)))
            .map(|extent| Dimension {
                extent: Some(extent),
            })
            .collect();
        let tensor_type = TensorType {
            elem_type: DataType::Float.into(),
            shape: Some(Shape { dim }),
        };
        Self {
            name: name.into(),
            r#type: Some(Type {
                tensor_type: Some(tensor_type),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn line() -> Graph {
        let mut graph = Graph::new("line", "x", &[3]);
        let numbers = Tensor::arange(3, (Kind::Float, Device::Cpu));
        let slope = graph.constant("slope", &(&numbers + 2.0));
        let shift = graph.constant("shift", &numbers);
        let steep = graph.node("steep", "Mul", ["x", &slope], vec![]);
        graph.node("y", "Add", [&steep, &shift], vec![]);
        graph
    }

    fn model() -> Model {
        let files = line().finish("y", &[3], BTreeMap::from([("note", "a line".into())]), "");
        assert!(files.weights.is_none());
        Model::decode(files.model.as_slice()).unwrap()
    }

    #[test]
    fn what_is_too_large_for_one_file_has_its_weights_in_a_second() {
        let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0]).view([1, 3]);
        let expected = Tensor::from_slice(&[2.0f32, 7.0, 14.0]).view([1, 3]);
        let whole = model().into_files("line.onnx.data", LARGEST_MESSAGE);
        assert_eq!(whole.compute(&x).unwrap(), expected);

        let divided = model().into_files("line.onnx.data", 10);
        let weights = divided.weights.as_ref().unwrap();
        // The second begins on a page.
        assert_eq!(weights.len(), 4096 + 12);
        assert_eq!(divided.compute(&x).unwrap(), expected);
        let alone = OnnxFiles {
            weights: None,
            ..divided.clone()
        };
        let error = alone.compute(&x).unwrap_err().to_string();
        assert!(error.contains("without slope"), "{error}");
        let shorter = OnnxFiles {
            weights: Some(weights[..4100].to_vec()),
            ..divided
        };
        let error = shorter.compute(&x).unwrap_err().to_string();
        assert!(error.contains("without shift"), "{error}");
    }

    #[test]
    fn zeros_are_written() {
        let axis = Attribute::int("axis", 0);
        let read = Attribute::decode(axis.encode_to_vec().as_slice()).unwrap();
        assert_eq!(read.i, Some(0));
    }
}
