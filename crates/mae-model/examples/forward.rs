//! What a model computes from images, as tensors that other programs can compare.
//!
//! ```sh
//! cargo run --release -p mae-model --example forward -- model.safetensors in.safetensors out.safetensors
//! ```
//!
//! In: `images`, u8 `[batch, height, width, channels]`; `noise`, f32 `[batch, patches]`, whose order is the order of the
//! patches, and `kept`, i64 `[1]`, how many of them are visible.
//! Out: of whole images the `class_token` and the `mean` of the patch tokens, after the last norm, `[batch, embed_dim]`, and
//! `class_attention`, of the class token in the last block, `[batch, heads, 1 + patches]`;
//! of a model with a decoder also `latent`, `pred` in the image's order, and the scalar `loss`.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::Path;

use mae_model::checkpoint::read_config;
use mae_model::classifier::{ClassifierConfig, Pooling};
use mae_model::tensor_file::{read_tensors, write_tensors};
use mae_model::{MaskedAutoencoderViT, ModelError, VitClassifier, patchify};
use tch::{Device, Tensor, no_grad};

fn main() -> Result<(), Box<dyn Error>> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let [model, input, output] = &files[..] else {
        return Err("expected three files: the model, the input and the output".into());
    };
    let outputs = no_grad(|| forward(model.as_ref(), input.as_ref()))?;
    write_tensors(output.as_ref(), &outputs, HashMap::new())?;
    Ok(())
}

/// Everything that the model computes from the input.
fn forward(model: &Path, input: &Path) -> Result<BTreeMap<String, Tensor>, Box<dyn Error>> {
    let (inputs, _) = read_tensors(input)?;
    let get = |key: &str| inputs.get(key).ok_or(format!("no `{key}` in the input"));
    let (config, normalization) = read_config(model)?;
    let patches = patchify(get("images")?, config.patch_size)?;

    let mut outputs = BTreeMap::new();
    for (key, pooling) in [
        ("class_token", Pooling::ClassToken),
        ("mean", Pooling::NormThenMean),
    ] {
        let encoder = config.clone().without_target();
        let config = ClassifierConfig {
            pooling,
            ..ClassifierConfig::linear_probe(encoder, 1)
        };
        let encoder = VitClassifier::new(&config, &normalization, Device::Cpu, 0)?;
        encoder.load_encoder(model)?;
        outputs.insert(key.into(), encoder.features(&patches)?);
        outputs.insert("class_attention".into(), encoder.class_attention(&patches)?);
    }

    let model = match MaskedAutoencoderViT::load(model, Device::Cpu) {
        Err(ModelError::EncoderOnly { .. }) => return Ok(outputs),
        model => model?,
    };
    let ids_shuffle = get("noise")?.argsort(1, false);
    let kept = get("kept")?.int64_value(&[0]);
    let dim = patches.size()[2];
    let ids = ids_shuffle.unsqueeze(-1).expand([-1, -1, dim], false);
    let shuffled = patches.gather(1, &ids, false);
    let visible = shuffled.narrow(1, 0, kept);
    let masked = shuffled.narrow(1, kept, shuffled.size()[1] - kept);
    let latent = model.forward_encoder(&visible, &ids_shuffle)?;
    outputs.insert("pred".into(), model.predict(&latent, &ids_shuffle)?);
    outputs.insert("latent".into(), latent);
    outputs.insert(
        "loss".into(),
        model.forward(&visible, &masked, &ids_shuffle)?,
    );
    Ok(outputs)
}
