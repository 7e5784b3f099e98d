//! What model a file of weights is of.

use mae_data::list_classes;
use mae_model::classifier::{ClassifierConfig, Pooling};
use mae_model::{LossRegion, MaeConfig, Target, TokenizerConfig};
use serde::Serialize;

use super::lines::{Lines, count};
use super::weights::{Parameters, millions};

/// A model, by what its file says.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "what", content = "config", rename_all = "kebab-case")]
pub enum Model {
    /// A whole Masked Autoencoder.
    MaskedAutoencoder(Box<MaeConfig>),
    /// The encoder of one; the decoder's dimensions mean nothing.
    Encoder(Box<MaeConfig>),
    /// An encoder with a head of classes.
    Classifier(Box<ClassifierConfig>),
    /// A discrete autoencoder.
    Tokenizer(TokenizerConfig),
    /// What an encoder made of images, and no weights.
    Embeddings(Embeddings),
    /// Something else; what it seems to be.
    Foreign(String),
}

/// What `mae-train embed` wrote.
#[derive(Clone, Debug, Serialize)]
pub struct Embeddings {
    /// `[images, embed_dim]`, or `[images, patches, embed_dim]`.
    pub shape: Vec<i64>,
    /// What was taken of an image's tokens: `cls`, `mean` or `patches`.
    pub tokens: String,
    /// The classes of the labels; none if the images have no labels.
    pub classes: Vec<String>,
}

impl Model {
    /// What it is, in a few words.
    pub fn name(&self) -> String {
        match self {
            Self::MaskedAutoencoder(_) => "a Masked Autoencoder".into(),
            Self::Encoder(_) => "the encoder of a Masked Autoencoder (part = encoder)".into(),
            Self::Classifier(_) => "a classifier".into(),
            Self::Tokenizer(_) => "a tokenizer".into(),
            Self::Embeddings(_) => "embeddings of images (mae-train embed), no weights".into(),
            Self::Foreign(seems) => format!("no file of this project; it seems to be {seems}"),
        }
    }

    /// Its dimensions, a line each.
    pub fn describe(&self, parameters: &Parameters, lines: &mut Lines) {
        match self {
            Self::MaskedAutoencoder(config) => {
                describe_encoder(config, parameters.encoder, lines);
                lines.fact(
                    "decoder",
                    shape(
                        config.decoder_depth,
                        config.decoder_embed_dim,
                        config.decoder_num_heads,
                        parameters.decoder,
                    ),
                );
                lines.fact("target", target(config, parameters));
            }
            Self::Encoder(config) => {
                describe_encoder(config, parameters.encoder, lines);
                lines.fact(
                    "decoder",
                    "none: eval, embed and export take it, reconstruct does not",
                );
            }
            Self::Classifier(config) => {
                describe_encoder(&config.encoder, parameters.encoder, lines);
                let pooling = match config.pooling {
                    Pooling::MeanThenNorm => "the mean of the patches, then a norm",
                    Pooling::NormThenMean => "a norm, then the mean of the patches",
                    Pooling::ClassToken => "the class token",
                };
                let head = millions(parameters.head);
                lines.fact(
                    "head",
                    format!(
                        "{} classes, of {pooling}; {head} parameters",
                        config.classes
                    ),
                );
                if !config.class_names.is_empty() {
                    lines.fact("classes", list_classes(&config.class_names));
                }
                lines.fact("use", "predict, export and convert take it");
            }
            Self::Tokenizer(config) => {
                let (rows, columns) = (
                    config.image_height / config.patch_size,
                    config.image_width / config.patch_size,
                );
                lines.fact(
                    "image",
                    image(
                        (config.image_height, config.image_width, config.channels),
                        (rows, columns, config.patch_size),
                    ),
                );
                lines.fact(
                    "vocabulary",
                    format!("{} tokens, one a patch", config.vocabulary),
                );
                lines.fact(
                    "network",
                    format!(
                        "{} wide, {} a size; parameters: encoder {}, decoder {}",
                        config.width,
                        count(config.blocks, "residual block"),
                        millions(parameters.encoder),
                        millions(parameters.decoder)
                    ),
                );
            }
            Self::Embeddings(embeddings) => {
                let sides: Vec<String> = embeddings.shape.iter().map(i64::to_string).collect();
                lines.fact(
                    "features",
                    format!(
                        "[{}], of each image {}",
                        sides.join(", "),
                        match embeddings.tokens.as_str() {
                            "cls" => "the class token",
                            "mean" => "the mean of its patch tokens",
                            _ => "its patch tokens",
                        }
                    ),
                );
                lines.fact(
                    "labels",
                    match embeddings.classes.len() {
                        0 => "none".into(),
                        1 => "of 1 class".into(),
                        classes => format!("of {classes} classes"),
                    },
                );
            }
            Self::Foreign(seems) if seems.ends_with("layout") => {
                lines.fact("import", "mae-train convert");
            }
            Self::Foreign(_) => {}
        }
    }
}

fn describe_encoder(config: &MaeConfig, parameters: u64, lines: &mut Lines) {
    let patch = config.patch_size;
    lines.fact(
        "image",
        image(
            (config.image_height, config.image_width, config.channels),
            (
                config.image_height / patch,
                config.image_width / patch,
                patch,
            ),
        ),
    );
    let shape = shape(config.depth, config.embed_dim, config.num_heads, parameters);
    let name = ["tiny", "small", "base", "large", "huge"]
        .into_iter()
        .find(|name| {
            let preset = MaeConfig::preset(name, 224).expect("these are presets");
            let dimensions = |config: &MaeConfig| {
                (
                    config.embed_dim,
                    config.depth,
                    config.num_heads,
                    config.mlp_ratio,
                )
            };
            dimensions(&preset) == dimensions(config)
        });
    let name = name.map_or(String::new(), |name| format!("ViT {name}: "));
    let mask_tokens = match config.encoder_mask_tokens {
        true => "; it sees mask tokens",
        false => "",
    };
    lines.fact("encoder", format!("{name}{shape}{mask_tokens}"));
}

fn image(
    (height, width, channels): (usize, usize, usize),
    (rows, columns, patch): (usize, usize, usize),
) -> String {
    format!(
        "{height} x {width} pixels of {channels} channels, in {rows} x {columns} patches of {patch} x {patch}"
    )
}

fn shape(depth: usize, width: usize, heads: usize, parameters: u64) -> String {
    format!(
        "{}, {width} wide, {}, {} parameters",
        count(depth, "block"),
        count(heads, "head"),
        millions(parameters)
    )
}

fn target(config: &MaeConfig, parameters: &Parameters) -> String {
    let target = match (config.target, &config.tokenizer) {
        (Target::Pixels, _) if config.norm_pix_loss => {
            "pixels, each patch normalised by its own mean and deviation (norm_pix_loss)".into()
        }
        (Target::Pixels, _) => {
            "pixels, not normalised by their patch (norm_pix_loss = false)".into()
        }
        (Target::Pca, _) => format!("{} principal components of patches", config.target_dim()),
        (Target::Tokens, _) => format!(
            "tokens, of a vocabulary of {}, by a tokenizer of {} parameters",
            config.target_dim(),
            millions(parameters.target)
        ),
    };
    let region = match config.loss_region {
        LossRegion::Masked => "hidden",
        LossRegion::All => "all",
    };
    format!("{target}; loss on {region} patches")
}
