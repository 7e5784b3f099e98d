//! What other Vision Transformers have and this project's has not, but computes with other numbers: layer scale, and
//! biases that are not there.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Kind, Tensor};

use super::foreign;
use crate::Result;

/// Layer scales, and the layer that comes before each.
const SCALES: [(&str, &str); 2] = [("ls1.gamma", "attn.proj"), ("ls2.gamma", "mlp.fc2")];

/// Folds what can be folded without another result, and says so.
///
/// # Errors
/// [`ModelError::Foreign`](crate::ModelError::Foreign) if a layer scale does not fit the layer before it.
pub fn fold(
    path: &Path,
    tensors: &mut BTreeMap<String, Tensor>,
    notes: &mut Vec<String>,
) -> Result<()> {
    fold_layer_scale(path, tensors, notes)?;
    join_biases(tensors, notes)?;
    add_biases(tensors, notes)
}

/// `gamma * (W x + b)` is `(gamma * W) x + gamma * b`.
///
/// Source: Touvron et al. 2021, "Going deeper with Image Transformers", equation 4.
fn fold_layer_scale(
    path: &Path,
    tensors: &mut BTreeMap<String, Tensor>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let scaled = |key: &str| {
        let fits = |&(scale, layer): &(&str, &str)| {
            let block = key.strip_suffix(scale)?.strip_suffix('.')?;
            Some(format!("{block}.{layer}"))
        };
        SCALES.iter().find_map(fits)
    };
    let scales: Vec<(String, String)> = (tensors.keys())
        .filter_map(|key| Some((key.clone(), scaled(key)?)))
        .collect();
    for (key, layer) in &scales {
        let gamma = tensors.remove(key).expect("just listed");
        for part in ["weight", "bias"] {
            let name = format!("{layer}.{part}");
            // What is not there is reported as missing.
            let Some(tensor) = tensors.get(&name) else {
                continue;
            };
            let product = scale_rows(tensor, &gamma)?.ok_or_else(|| {
                let (gamma, size) = (gamma.size(), tensor.size());
                foreign(
                    path,
                    format!("`{key}` has shape {gamma:?}, which does not scale `{name}` of shape {size:?}; the file is damaged or of another model"),
                )
            })?;
            tensors.insert(name, product);
        }
    }
    if !scales.is_empty() {
        notes.push(
            "its layer scale is multiplied into the weights of the layers before it, which computes the same".into(),
        );
    }
    Ok(())
}

/// Each row times its number; in f32 at least, which holds the products of halves without rounding.
fn scale_rows(tensor: &Tensor, gamma: &Tensor) -> Result<Option<Tensor>> {
    if gamma.dim() != 1 || tensor.size().first() != gamma.size().first() {
        return Ok(None);
    }
    let kind = match [tensor.kind(), gamma.kind()].contains(&Kind::Double) {
        true => Kind::Double,
        false => Kind::Float,
    };
    let mut size = vec![1; tensor.dim()];
    size[0] = -1;
    let gamma = gamma.f_to_kind(kind)?.f_reshape(&size)?;
    Ok(Some(tensor.f_to_kind(kind)?.f_mul(&gamma)?))
}

/// BEiT's biases of queries and values, between which that of the keys is zero.
fn join_biases(tensors: &mut BTreeMap<String, Tensor>, notes: &mut Vec<String>) -> Result<()> {
    let attentions: Vec<String> = (tensors.keys())
        .filter_map(|key| key.strip_suffix(".q_bias"))
        .filter(|attention| {
            let has = |name: &str| tensors.contains_key(&format!("{attention}.{name}"));
            has("v_bias") && !has("qkv.bias")
        })
        .map(str::to_string)
        .collect();
    for attention in &attentions {
        let mut take = |name: &str| tensors.remove(&format!("{attention}.{name}"));
        let (query, key, value) = (take("q_bias"), take("k_bias"), take("v_bias"));
        let (Some(query), Some(value)) = (query, value) else {
            continue;
        };
        let key = match key {
            Some(key) => key,
            None => query.f_zeros_like()?,
        };
        let bias = Tensor::f_cat(&[query, key, value], 0)?;
        tensors.insert(format!("{attention}.qkv.bias"), bias);
    }
    if !attentions.is_empty() {
        notes.push(
            "its keys have no bias; here they have one of zeros, which computes the same".into(),
        );
    }
    Ok(())
}

/// Zeros for the biases of queries, keys and values, if none of the blocks has them.
fn add_biases(tensors: &mut BTreeMap<String, Tensor>, notes: &mut Vec<String>) -> Result<()> {
    for (blocks, whose) in [("blocks.", "its"), ("decoder_blocks.", "its decoder's")] {
        let of_blocks = |key: &&String| key.starts_with(blocks);
        if (tensors.keys().filter(of_blocks)).any(|key| key.ends_with(".attn.qkv.bias")) {
            continue;
        }
        let weights: Vec<String> = (tensors.keys().filter(of_blocks))
            .filter(|key| key.ends_with(".attn.qkv.weight"))
            .cloned()
            .collect();
        for key in &weights {
            let weight = &tensors[key];
            let rows = weight.size().first().copied().unwrap_or(0);
            let bias = Tensor::f_zeros([rows], (weight.kind(), weight.device()))?;
            tensors.insert(key.replace(".qkv.weight", ".qkv.bias"), bias);
        }
        if !weights.is_empty() {
            notes.push(format!(
                "{whose} queries, keys and values have no bias; here they have one of zeros, which computes the same"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn folded(tensors: &[(&str, Tensor)]) -> Result<(BTreeMap<String, Tensor>, Vec<String>)> {
        let mut tensors: BTreeMap<String, Tensor> = (tensors.iter())
            .map(|(key, tensor)| (key.to_string(), tensor.shallow_clone()))
            .collect();
        let mut notes = Vec::new();
        fold("a.pth".as_ref(), &mut tensors, &mut notes)?;
        Ok((tensors, notes))
    }

    #[test]
    fn a_layer_and_its_scale_become_one_layer() {
        for (kind, expected) in [
            (Kind::Float, Kind::Float),
            (Kind::BFloat16, Kind::Float),
            (Kind::Half, Kind::Float),
            (Kind::Double, Kind::Double),
        ] {
            let draw =
                |size: &[i64]| Tensor::randn(size, (Kind::Double, Device::Cpu)).to_kind(kind);
            let (weight, bias, gamma) = (draw(&[3, 5]), draw(&[3]), draw(&[3]));
            let (found, notes) = folded(&[
                ("blocks.0.attn.proj.weight", weight.shallow_clone()),
                ("blocks.0.attn.proj.bias", bias.shallow_clone()),
                ("blocks.0.ls1.gamma", gamma.shallow_clone()),
            ])
            .unwrap();
            assert_eq!(found.len(), 2);
            assert!(notes[0].contains("layer scale"));
            let x = Tensor::randn([5], (Kind::Double, Device::Cpu));
            let of = |tensor: &Tensor| tensor.to_kind(Kind::Double);
            let (new_weight, new_bias) = (
                &found["blocks.0.attn.proj.weight"],
                &found["blocks.0.attn.proj.bias"],
            );
            assert_eq!(new_weight.kind(), expected);
            let ours = of(new_weight).mv(&x) + of(new_bias);
            let theirs = of(&gamma) * (of(&weight).mv(&x) + of(&bias));
            let error = (ours - theirs).abs().max().double_value(&[]);
            assert!(
                error < if kind == Kind::Float { 1e-6 } else { 1e-12 },
                "{kind:?}: {error}"
            );
        }
        let (two, three) = (
            Tensor::from_slice(&[1f32; 2]),
            Tensor::from_slice(&[1f32; 3]),
        );
        let misfit = folded(&[
            ("blocks.0.mlp.fc2.bias", three),
            ("blocks.0.ls2.gamma", two),
        ]);
        let message = misfit.unwrap_err().to_string();
        assert!(
            message.contains("`blocks.0.ls2.gamma` has shape [2]"),
            "{message}"
        );
    }

    #[test]
    fn biases_that_are_not_there_are_zeros() {
        let ones = |size: &[i64]| Tensor::ones(size, (Kind::Float, Device::Cpu));
        let key = "blocks.0.attn.qkv.bias";
        let weight = ("blocks.0.attn.qkv.weight", ones(&[6, 2]));
        let (found, notes) = folded(&[
            ("blocks.0.attn.qkv.weight", ones(&[6, 2])),
            ("blocks.0.attn.q_bias", ones(&[2])),
            ("blocks.0.attn.v_bias", ones(&[2])),
        ])
        .unwrap();
        let expected = Tensor::from_slice(&[1f32, 1.0, 0.0, 0.0, 1.0, 1.0]);
        assert_eq!(found[key], expected);
        assert_eq!((found.len(), notes.len()), (2, 1));
        let (found, notes) = folded(&[weight]).unwrap();
        assert_eq!(found[key], Tensor::zeros([6], (Kind::Float, Device::Cpu)));
        assert!(notes[0].contains("queries, keys and values have no bias"));
        // That of one block alone is missing.
        let (found, _) = folded(&[
            ("blocks.0.attn.qkv.weight", ones(&[6, 2])),
            ("blocks.1.attn.qkv.bias", ones(&[6])),
        ])
        .unwrap();
        assert!(!found.contains_key(key));
    }
}
