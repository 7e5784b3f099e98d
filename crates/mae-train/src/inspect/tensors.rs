//! The tensors of a file: groups of alike ones, and signs of damage.

use std::collections::BTreeMap;

use serde::Serialize;
use tch::{Kind, Tensor};

/// Tensors of one shape and type whose keys differ in one number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Their keys, the numbers as a range: `blocks.0..11.norm1.weight` is twelve.
    pub keys: String,
    /// Their shape.
    pub shape: Vec<i64>,
    /// Their type, for example `f32`.
    pub dtype: &'static str,
    /// How many they are.
    pub tensors: usize,
}

/// Groups alike tensors, in the order in which a person counts: block 2 before block 10.
pub fn group(tensors: &BTreeMap<String, Tensor>) -> Vec<Group> {
    let mut keys: Vec<&String> = tensors.keys().collect();
    keys.sort_by_key(|key| natural(key));
    let mut groups: Vec<(Pattern, Vec<i64>, Kind, Vec<u64>)> = Vec::new();
    for key in keys {
        let tensor = &tensors[key];
        let (pattern, number) = Pattern::of(key);
        let (shape, kind) = (tensor.size(), tensor.kind());
        let is_same = |group: &&mut (Pattern, Vec<i64>, Kind, Vec<u64>)| {
            number.is_some() && group.0 == pattern && group.1 == shape && group.2 == kind
        };
        match groups.iter_mut().find(is_same) {
            Some(group) => group.3.extend(number),
            None => groups.push((pattern, shape, kind, number.into_iter().collect())),
        }
    }
    groups
        .into_iter()
        .map(|(pattern, shape, kind, numbers)| Group {
            keys: pattern.with(&numbers),
            shape,
            dtype: dtype(kind),
            tensors: numbers.len().max(1),
        })
        .collect()
}

/// A key without its first number.
#[derive(PartialEq)]
struct Pattern {
    before: String,
    after: String,
}

impl Pattern {
    fn of(key: &str) -> (Self, Option<u64>) {
        let parts: Vec<&str> = key.split('.').collect();
        let number = parts.iter().position(|part| part.parse::<u64>().is_ok());
        let (before, after) = match number {
            Some(at) => (parts[..at].join("."), parts[at + 1..].join(".")),
            None => (key.into(), String::new()),
        };
        let number = number.and_then(|at| parts[at].parse().ok());
        (Self { before, after }, number)
    }

    fn with(&self, numbers: &[u64]) -> String {
        let numbers = match numbers {
            [] => return self.before.clone(),
            [one] => one.to_string(),
            [first, .., last] if last - first + 1 == numbers.len() as u64 => {
                format!("{first}..{last}")
            }
            _ => {
                let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
                numbers.join(",")
            }
        };
        [self.before.as_str(), &numbers, &self.after]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(".")
    }
}

/// What to sort keys by, so that numbers count as such.
fn natural(key: &str) -> Vec<(u64, &str)> {
    key.split('.')
        .map(|part| match part.parse() {
            Ok(number) => (number, ""),
            Err(_) => (0, part),
        })
        .collect()
}

/// What a type is called.
pub fn dtype(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "f32",
        Kind::Double => "f64",
        Kind::Half => "f16",
        Kind::BFloat16 => "bf16",
        Kind::Int64 => "i64",
        Kind::Int => "i32",
        Kind::Uint8 => "u8",
        _ => "another type",
    }
}

/// How many values of a tensor are not finite.
pub fn not_finite(tensor: &Tensor) -> u64 {
    if !tensor.is_floating_point() {
        return 0;
    }
    let finite = tensor.isfinite().sum(Kind::Int64).int64_value(&[]);
    tensor.numel() as u64 - finite as u64
}

/// Whether a tensor has values, and all of them are zero.
pub fn is_zero(tensor: &Tensor) -> bool {
    tensor.numel() > 0 && tensor.count_nonzero(None).int64_value(&[]) == 0
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn alike_tensors_are_one_line() {
        let mut tensors = BTreeMap::new();
        let mut put = |key: &str, size: &[i64]| {
            tensors.insert(key.into(), Tensor::zeros(size, (Kind::Float, Device::Cpu)));
        };
        for block in 0..12 {
            put(&format!("blocks.{block}.mlp.fc1.bias"), &[8]);
        }
        put("blocks.3.extra", &[1]);
        put("norm.weight", &[4]);
        for layer in [0, 2] {
            put(&format!("layers.{layer}.0.weight"), &[2, 2]);
        }
        put("layers.4.0.weight", &[2, 3]);
        let lines: Vec<String> = group(&tensors)
            .iter()
            .map(|group| format!("{} {:?} {}", group.keys, group.shape, group.tensors))
            .collect();
        assert_eq!(
            lines,
            [
                "blocks.0..11.mlp.fc1.bias [8] 12",
                "blocks.3.extra [1] 1",
                "layers.0,2.0.weight [2, 2] 2",
                "layers.4.0.weight [2, 3] 1",
                "norm.weight [4] 1",
            ]
        );
    }

    #[test]
    fn damage_is_counted() {
        let damaged = Tensor::from_slice(&[0.0f32, f32::NAN, f32::INFINITY, 1.0]);
        assert_eq!(not_finite(&damaged), 2);
        assert_eq!(not_finite(&Tensor::from_slice(&[1i64])), 0);
        assert!(is_zero(&Tensor::from_slice(&[0.0f32, 0.0])));
        assert!(!is_zero(&damaged) && !is_zero(&Tensor::from_slice::<f32>(&[])));
    }
}
