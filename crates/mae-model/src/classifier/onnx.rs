//! The encoder or the classifier as an ONNX file, for ONNX Runtime and what else reads it.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, no_grad};

use super::torchscript::{INPUT, LOGITS, TOKENS};
use super::{Pooling, VitClassifier};
use crate::Result;
use crate::error::invalid;
use crate::metadata::{CLASSIFIER, CONFIG, NORMALIZATION, json};
use crate::onnx::{Attribute, Graph, OnnxFiles};

/// What an ONNX file of a model gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// All tokens after the encoder's last norm, `[batch, 1 + patches, embed_dim]`, as [`VitClassifier::tokens`].
    Tokens,
    /// Logits, `[batch, classes]`, as [`VitClassifier::forward`].
    Logits,
}

impl VitClassifier {
    /// The model as an ONNX file of operators of version 17, in f32, for any number of images.
    ///
    /// Weights have their native keys; those of linear layers are transposed, which `_transposed` says.
    /// Position and class token are one constant, `tokens.added`.
    /// `normalization`, `input`, `output`, and `config` or `classifier` and `classes` are strings of its metadata, as
    /// those of a TorchScript module.
    /// A model that is too large for one file has its weights in a second, which is to lie beside it as `weights_file`.
    ///
    /// # Shapes
    /// - its input `images` is `[batch, channels, height, width]`, f32 pixels in the units of the normalisation: 0..1
    ///   for images
    /// - its output `tokens` is `[batch, 1 + patches, embed_dim]`; `logits` is `[batch, classes]`
    ///
    /// # Errors
    /// [`ModelError::Config`](crate::ModelError::Config) if tokens are asked for and the pooling comes before the norm.
    pub fn to_onnx(&self, output: Output, weights_file: &str) -> Result<OnnxFiles> {
        if output == Output::Tokens && self.config.pooling == Pooling::MeanThenNorm {
            let expected = "a pooling that comes after the encoder's norm".into();
            return Err(invalid("pooling", "mean_then_norm", expected));
        }
        Ok(no_grad(|| self.graph(output, weights_file)))
    }

    fn graph(&self, output: Output, weights_file: &str) -> OnnxFiles {
        let encoder = &self.config.encoder;
        let size = [encoder.channels, encoder.image_height, encoder.image_width];
        let mut vit = VitGraph {
            graph: Graph::new("vit", "images", &size.map(|n| n as i64)),
            weights: self.parameters(),
            heads: encoder.num_heads as i64,
            dim: encoder.embed_dim as i64,
            eps: encoder.layer_norm_eps,
        };
        let pixels = vit.normalized("images", &self.normalization.mean, &self.normalization.std);
        let mut tokens = vit.tokens(&pixels, encoder.patch_size as i64);
        for block in 0..encoder.depth {
            tokens = vit.block(&format!("blocks.{block}"), &tokens);
        }
        let strings = BTreeMap::from([
            (NORMALIZATION, json(&self.normalization)),
            ("input", INPUT.into()),
        ]);
        match output {
            Output::Tokens => {
                vit.norm("norm", &tokens, "tokens");
                let strings = strings
                    .into_iter()
                    .chain([(CONFIG, json(encoder)), ("output", TOKENS.into())]);
                let size = [1 + self.patches(), vit.dim];
                vit.graph
                    .finish("tokens", &size, strings.collect(), weights_file)
            }
            Output::Logits => {
                let pooled = vit.pool(self.config.pooling, &tokens);
                vit.linear("head", &pooled, "logits");
                let strings = strings.into_iter().chain([
                    (CLASSIFIER, json(&self.config)),
                    ("classes", json(&self.class_names())),
                    ("output", LOGITS.into()),
                ]);
                let size = [self.config.classes as i64];
                vit.graph
                    .finish("logits", &size, strings.collect(), weights_file)
            }
        }
    }
}

/// A ViT's graph in the making: each function adds nodes, and returns the name of what they make.
struct VitGraph {
    graph: Graph,
    weights: BTreeMap<String, Tensor>,
    heads: i64,
    dim: i64,
    eps: f64,
}

impl VitGraph {
    /// Images in the units of mean and standard deviation to normalised ones; what is missing becomes 0.
    fn normalized(&mut self, images: &str, mean: &[f32], std: &[f32]) -> String {
        let graph = &mut self.graph;
        let row = |values: &[f32]| Tensor::from_slice(values).view([1, -1, 1, 1]);
        let mean = graph.constant("pixels.mean", &row(mean));
        let std = graph.constant("pixels.std", &row(std));
        let zero = graph.number("pixels.missing", 0.0);
        let centred = graph.node("pixels.centred", "Sub", [images, &mean], vec![]);
        let scaled = graph.node("pixels.scaled", "Div", [&centred, &std], vec![]);
        let is_missing = graph.node("pixels.is_missing", "IsNaN", [&scaled], vec![]);
        graph.node(
            "pixels.normalized",
            "Where",
            [&is_missing, &zero, &scaled],
            vec![],
        )
    }

    /// `[batch, channels, height, width]` to `[batch, 1 + patches, dim]`, positions added.
    fn tokens(&mut self, pixels: &str, patch_size: i64) -> String {
        let weight = self.weight("patch_embed.proj.weight");
        let bias = self.weight("patch_embed.proj.bias");
        // The class token's place is made by padding, and the token added with its position: the number of images is
        // asked for nowhere.
        let added = self.weights["pos_embed"].copy();
        let mut first = added.narrow(1, 0, 1);
        first += &self.weights["cls_token"];
        let added = self.constant("tokens.added", &added);
        let graph = &mut self.graph;
        let rows = graph.integers("tokens.rows", &[0, self.dim, -1]);
        let place = graph.integers("tokens.place", &[0, 1, 0, 0, 0, 0]);
        let strides = Attribute::ints("strides", &[patch_size, patch_size]);
        let kernel = Attribute::ints("kernel_shape", &[patch_size, patch_size]);
        let projected = graph.node(
            "tokens.projected",
            "Conv",
            [pixels, &weight, &bias],
            vec![kernel, strides],
        );
        let flat = graph.node("tokens.flat", "Reshape", [&projected, &rows], vec![]);
        let perm = Attribute::ints("perm", &[0, 2, 1]);
        let patches = graph.node("tokens.patches", "Transpose", [&flat], vec![perm]);
        let padded = graph.node("tokens.padded", "Pad", [&patches, &place], vec![]);
        graph.node("tokens.embedded", "Add", [&padded, &added], vec![])
    }

    fn block(&mut self, key: &str, tokens: &str) -> String {
        let part = |name: &str| format!("{key}.{name}");
        let normed = self.norm(&part("norm1"), tokens, &part("norm1"));
        let attended = self.attention(&part("attn"), &normed);
        let tokens = self.operate(&part("attended"), "Add", [tokens, &attended]);
        let normed = self.norm(&part("norm2"), &tokens, &part("norm2"));
        let hidden = self.linear(&part("mlp.fc1"), &normed, &part("mlp.fc1"));
        let hidden = self.gelu(&part("mlp.gelu"), &hidden);
        let hidden = self.linear(&part("mlp.fc2"), &hidden, &part("mlp.fc2"));
        self.operate(key, "Add", [&tokens, &hidden])
    }

    fn attention(&mut self, key: &str, tokens: &str) -> String {
        let part = |name: &str| format!("{key}.{name}");
        let head_dim = self.dim / self.heads;
        let qkv = self.linear(&part("qkv"), tokens, &part("qkv"));
        let sizes = self
            .graph
            .integers("attn.sizes", &[0, 0, 3, self.heads, head_dim]);
        let merged_sizes = self.graph.integers("attn.merged_sizes", &[0, 0, self.dim]);
        let scale = self
            .graph
            .number("attn.scale", (head_dim as f64).sqrt().recip());
        let split = self.operate(&part("split"), "Reshape", [&qkv, &sizes]);
        let perm = |dims: &[i64]| vec![Attribute::ints("perm", dims)];
        let graph = &mut self.graph;
        let split = graph.node(
            &part("heads"),
            "Transpose",
            [&split],
            perm(&[2, 0, 3, 1, 4]),
        );
        let mut of = |name: &str, at: i64| {
            let at = graph.constant(&format!("attn.{name}.at"), &Tensor::from(at));
            let axis = vec![Attribute::int("axis", 0)];
            graph.node(&part(name), "Gather", [&split, &at], axis)
        };
        let [q, k, v] = [of("q", 0), of("k", 1), of("v", 2)];
        let q = graph.node(&part("q.scaled"), "Mul", [&q, &scale], vec![]);
        let k = graph.node(
            &part("k.transposed"),
            "Transpose",
            [&k],
            perm(&[0, 1, 3, 2]),
        );
        let scores = graph.node(&part("scores"), "MatMul", [&q, &k], vec![]);
        let last = vec![Attribute::int("axis", -1)];
        let shares = graph.node(&part("shares"), "Softmax", [&scores], last);
        let gathered = graph.node(&part("gathered"), "MatMul", [&shares, &v], vec![]);
        let gathered = graph.node(
            &part("tokens"),
            "Transpose",
            [&gathered],
            perm(&[0, 2, 1, 3]),
        );
        let merged = self.operate(&part("merged"), "Reshape", [&gathered, &merged_sizes]);
        self.linear(&part("proj"), &merged, &part("proj"))
    }

    /// The exact one: x (1 + erf(x / sqrt(2))) / 2.
    fn gelu(&mut self, name: &str, x: &str) -> String {
        let part = |part: &str| format!("{name}.{part}");
        let root = self.graph.number("gelu.root", std::f64::consts::SQRT_2);
        let one = self.graph.number("gelu.one", 1.0);
        let half = self.graph.number("gelu.half", 0.5);
        let scaled = self.operate(&part("scaled"), "Div", [x, &root]);
        let erf = self.operate(&part("erf"), "Erf", [&scaled]);
        let share = self.operate(&part("share"), "Add", [&erf, &one]);
        let twice = self.operate(&part("twice"), "Mul", [x, &share]);
        self.operate(name, "Mul", [&twice, &half])
    }

    /// `[batch, 1 + patches, dim]` to `[batch, dim]`.
    fn pool(&mut self, pooling: Pooling, tokens: &str) -> String {
        match pooling {
            Pooling::MeanThenNorm => {
                let mean = self.mean(tokens);
                self.norm("fc_norm", &mean, "pooled")
            }
            Pooling::NormThenMean => {
                let normed = self.norm("norm", tokens, "normed");
                self.mean(&normed)
            }
            Pooling::ClassToken => {
                let first = self.graph.constant("class_token.at", &Tensor::from(0i64));
                let axis = vec![Attribute::int("axis", 1)];
                let token = self
                    .graph
                    .node("class_token", "Gather", [tokens, &first], axis);
                self.norm("norm", &token, "pooled")
            }
        }
    }

    /// Of the patch tokens.
    fn mean(&mut self, tokens: &str) -> String {
        let graph = &mut self.graph;
        let start = graph.integers("patches.start", &[1]);
        let end = graph.integers("patches.end", &[i64::MAX]);
        let axis = graph.integers("patches.axis", &[1]);
        let patches = graph.node("patches", "Slice", [tokens, &start, &end, &axis], vec![]);
        let of = vec![Attribute::ints("axes", &[1]), Attribute::int("keepdims", 0)];
        graph.node("patches.mean", "ReduceMean", [&patches], of)
    }

    fn norm(&mut self, key: &str, x: &str, name: &str) -> String {
        let weight = self.weight(&format!("{key}.weight"));
        let bias = self.weight(&format!("{key}.bias"));
        let settings = vec![
            Attribute::int("axis", -1),
            Attribute::float("epsilon", self.eps),
        ];
        self.graph
            .node(name, "LayerNormalization", [x, &weight, &bias], settings)
    }

    fn linear(&mut self, key: &str, x: &str, name: &str) -> String {
        let weight = self.weights[&format!("{key}.weight")].transpose(0, 1);
        let weight = self.constant(&format!("{key}.weight_transposed"), &weight);
        let bias = self.weight(&format!("{key}.bias"));
        let product = self.operate(&format!("{name}.product"), "MatMul", [x, &weight]);
        self.operate(name, "Add", [&product, &bias])
    }

    /// A node without attributes.
    fn operate<const N: usize>(&mut self, name: &str, operator: &str, inputs: [&str; N]) -> String {
        self.graph.node(name, operator, inputs, vec![])
    }

    fn weight(&mut self, key: &str) -> String {
        let weight = self.weights[key].shallow_clone();
        self.constant(key, &weight)
    }

    fn constant(&mut self, name: &str, tensor: &Tensor) -> String {
        let tensor = tensor
            .to_device(Device::Cpu)
            .to_kind(Kind::Float)
            .contiguous();
        self.graph.constant(name, &tensor)
    }
}
