//! The paper's ablations: what each varies, and what the paper found.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::base::Base;

/// One setting, varied: a panel of the paper's table 1, one of its figures, or a user's own grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Study {
    /// As on the command line.
    pub name: String,
    /// The letter of the paper's table 1.
    pub panel: Option<char>,
    pub title: String,
    /// What it varies and why, one sentence.
    pub question: String,
    /// What stands along the chart's axis.
    pub axis: String,
    /// Whether the values are numbers in order.
    pub numeric: bool,
    /// How the paper's values were scaled to the user's model, if they were.
    pub rule: Option<String>,
    /// Whether the pre-training losses of two values measure the same.
    pub loss_comparable: bool,
    /// The index of the value that times are relative to: where the paper's own setting is.
    pub reference: usize,
    /// Where the paper's numbers are from.
    pub paper: Option<String>,
    pub variants: Vec<Variant>,
}

/// One value of the setting.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    pub label: String,
    pub number: Option<f64>,
    /// What is set beside the base configuration, as for `--set`.
    pub set: Vec<String>,
    /// The only protocol that this value is judged by; without it by those of all values.
    pub protocol: Option<String>,
    /// Whether the configuration needs a tokenizer, `data.tokenizer`.
    pub needs_tokenizer: bool,
    /// The paper's top-1 accuracy in percent, by `linear` and `finetune`.
    pub paper: BTreeMap<String, f64>,
}

/// The names of the paper's studies, with what each varies.
pub const STUDIES: &[(&str, &str)] = &[
    (
        "decoder-depth",
        "blocks of the decoder: 1 2 4 8 12 (table 1a)",
    ),
    (
        "decoder-width",
        "width of the decoder: 1/8 to all of the encoder's (table 1b)",
    ),
    (
        "mask-token",
        "an encoder that sees mask tokens, and one that does not (table 1c, table 2)",
    ),
    (
        "target",
        "pixels, normalised pixels, PCA coefficients, dVAE tokens (table 1d)",
    ),
    (
        "augmentation",
        "none, crops of fixed or random size, and colour jitter (table 1e)",
    ),
    (
        "mask-sampling",
        "random 75 %, block 50 %, block 75 %, grid 75 % (table 1f)",
    ),
    (
        "mask-ratio",
        "share of hidden patches: 10 to 90 % (figure 5)",
    ),
    (
        "schedule",
        "length of training: 1, 2, 4 and 8 times the configuration's (figure 7)",
    ),
    (
        "partial-finetune",
        "blocks that are fine-tuned: 0 0.5 1 2 4 ... all, from one pre-training (figure 9)",
    ),
    (
        "loss-region",
        "the loss on masked patches, or on all (section 3)",
    ),
];

/// The study of that name for the user's model.
///
/// # Errors
/// If there is none.
pub fn study(name: &str, base: &Base) -> Result<Study> {
    Ok(match name {
        "decoder-depth" => decoder_depth(),
        "decoder-width" => decoder_width(base),
        "mask-token" => mask_token(),
        "target" => target(base),
        "augmentation" => augmentation(),
        "mask-sampling" => mask_sampling(),
        "mask-ratio" => mask_ratio(),
        "schedule" => schedule(base),
        "partial-finetune" => partial_finetune(base),
        "loss-region" => loss_region(),
        _ => {
            let names: Vec<&str> = STUDIES.iter().map(|(name, _)| *name).collect();
            bail!(
                "{name:?} is no study: expected a .toml file of your own grid, or one of {}",
                names.join(", ")
            )
        }
    })
}

/// Table 1's model and budget.
const TABLE_1: &str = "ViT-L/16 on ImageNet-1K, 800 epochs; He et al. 2021, table 1";

fn decoder_depth() -> Study {
    let paper = [
        (1, 84.8, 65.5),
        (2, 84.9, 70.0),
        (4, 84.9, 71.9),
        (8, 84.9, 73.5),
        (12, 84.4, 73.3),
    ];
    Study {
        panel: Some('a'),
        title: "Decoder depth".into(),
        axis: "blocks of the decoder".into(),
        loss_comparable: true,
        reference: 3,
        paper: Some(format!("{TABLE_1}a")),
        variants: (paper.iter())
            .map(|&(blocks, finetune, linear)| {
                Variant::number(
                    f64::from(blocks),
                    &[format!("model.decoder_depth={blocks}")],
                )
                .paper(finetune, linear)
            })
            .collect(),
        ..numbers(
            "decoder-depth",
            "How many blocks must the decoder have for the encoder's features to be linearly separable?",
        )
    }
}

fn decoder_width(base: &Base) -> Study {
    // The paper's encoder is 1024 wide.
    let paper = [
        ("1/8", 0.125, 84.9, 69.1),
        ("1/4", 0.25, 84.8, 71.3),
        ("1/2", 0.5, 84.9, 73.5),
        ("3/4", 0.75, 84.4, 73.1),
        ("1", 1.0, 84.3, 73.1),
    ];
    let head = base.decoder_embed_dim as f64 / base.decoder_num_heads as f64;
    let mut variants: Vec<Variant> = Vec::new();
    for (_, share, finetune, linear) in paper {
        let (width, heads) = width_and_heads(share * base.embed_dim as f64, head);
        let variant = Variant::number(
            width as f64,
            &[
                format!("model.decoder_embed_dim={width}"),
                format!("model.decoder_num_heads={heads}"),
            ],
        );
        // Of a narrow encoder two shares may be the same width.
        if variants.iter().all(|other| other.set != variant.set) {
            variants.push(variant.paper(finetune, linear));
        }
    }
    let fractions: Vec<&str> = paper.iter().map(|(name, ..)| *name).collect();
    Study {
        panel: Some('b'),
        title: "Decoder width".into(),
        axis: "width of the decoder's tokens".into(),
        rule: Some(format!(
            "The paper's widths are {} of its encoder's 1024; these are the same shares of this encoder's {}, \
             rounded to a multiple of 4, in heads of about {head} as in the base configuration.",
            fractions.join(", "),
            base.embed_dim
        )),
        loss_comparable: true,
        reference: variants.len().min(3) - 1,
        paper: Some(format!("{TABLE_1}b")),
        variants,
        ..numbers("decoder-width", "How wide must the decoder be?")
    }
}

/// The multiple of 4 nearest to `width` and a number of heads that divides it, each about `head` wide.
fn width_and_heads(width: f64, head: f64) -> (usize, usize) {
    let width = 4 * ((width / 4.0).round() as usize).max(1);
    let wanted = ((width as f64 / head).round() as usize).max(1);
    let heads = (1..=wanted)
        .rev()
        .find(|heads| width.is_multiple_of(*heads));
    (width, heads.unwrap_or(1))
}

fn mask_token() -> Study {
    Study {
        panel: Some('c'),
        title: "Mask token".into(),
        axis: "encoder".into(),
        loss_comparable: true,
        reference: 0,
        paper: Some(format!(
            "{TABLE_1}c; there the encoder without mask tokens needs 3.3 times fewer operations, and trains 2.8 times \
             as fast (table 2)"
        )),
        variants: vec![
            Variant::name("with mask tokens", &["model.encoder_mask_tokens=true"])
                .paper(84.2, 59.6),
            Variant::name("without", &["model.encoder_mask_tokens=false"]).paper(84.9, 73.5),
        ],
        ..names(
            "mask-token",
            "Should the encoder see a mask token in place of each hidden patch, or the visible patches alone?",
        )
    }
}

fn target(base: &Base) -> Study {
    let coefficients = base.patch_dim.min(96);
    Study {
        panel: Some('d'),
        title: "Reconstruction target".into(),
        axis: "target".into(),
        rule: (coefficients < 96).then(|| {
            format!(
                "The paper's PCA keeps 96 coefficients; a patch of this model has but {} values, which are all kept.",
                base.patch_dim
            )
        }),
        reference: 0,
        paper: Some(format!(
            "{TABLE_1}d; its dVAE is DALL-E's, trained on 250 million images, and not one of the user's own images"
        )),
        variants: vec![
            Variant::name(
                "pixels",
                &["model.target=pixels", "model.norm_pix_loss=false"],
            )
            .paper(84.9, 73.5),
            Variant::name(
                "normalised pixels",
                &["model.target=pixels", "model.norm_pix_loss=true"],
            )
            .paper(85.4, 73.9),
            Variant::name(
                "PCA",
                &[
                    "model.target=pca",
                    "model.norm_pix_loss=false",
                    &format!("model.pca_components={coefficients}"),
                ],
            )
            .paper(84.6, 72.3),
            Variant {
                needs_tokenizer: true,
                ..Variant::name(
                    "dVAE tokens",
                    &["model.target=tokens", "model.norm_pix_loss=false"],
                )
            }
            .paper(85.3, 71.6),
        ],
        ..names(
            "target",
            "What should the decoder predict of a hidden patch?",
        )
    }
}

fn augmentation() -> Study {
    let variant = |label: &str, crop: &str, flip: bool| {
        Variant::name(
            label,
            &[
                &format!("data.augmentation={crop}"),
                &format!("data.hflip={flip}"),
            ],
        )
    };
    let mut jittered = variant("random size + colour", "random-resized-crop", true);
    jittered.set.push("data.color_jitter={}".into());
    Study {
        panel: Some('e'),
        title: "Data augmentation".into(),
        axis: "augmentation".into(),
        reference: 2,
        paper: Some(format!("{TABLE_1}e")),
        variants: vec![
            variant("none", "none", false).paper(84.0, 65.7),
            variant("fixed-size crop", "random-crop", true).paper(84.7, 73.1),
            variant("random-size crop", "random-resized-crop", true).paper(84.9, 73.5),
            jittered.paper(84.3, 71.9),
        ],
        ..names(
            "augmentation",
            "Which distortions of the images help? All but the first mirror every other image, too.",
        )
    }
}

fn mask_sampling() -> Study {
    let variant = |sampler: &str, percent: u32| {
        Variant::name(
            &format!("{sampler} {percent} %"),
            &[
                &format!("mask.sampler={sampler}"),
                &format!("mask.ratio={}", f64::from(percent) / 100.0),
            ],
        )
    };
    Study {
        panel: Some('f'),
        title: "Mask sampling".into(),
        axis: "which patches are hidden".into(),
        reference: 0,
        paper: Some(format!("{TABLE_1}f")),
        variants: vec![
            variant("random", 75).paper(84.9, 73.5),
            variant("block", 50).paper(83.9, 72.3),
            variant("block", 75).paper(82.8, 63.9),
            variant("grid", 75).paper(84.0, 66.0),
        ],
        ..names(
            "mask-sampling",
            "Should hidden patches be chosen one by one, in blocks, or by a regular grid?",
        )
    }
}

fn mask_ratio() -> Study {
    let linear = [
        (10, 54.6),
        (20, 58.9),
        (30, 61.7),
        (40, 67.0),
        (50, 69.9),
        (60, 71.8),
        (70, 73.2),
        (75, 73.5),
        (80, 71.8),
        (90, 66.1),
    ];
    Study {
        title: "Mask ratio".into(),
        axis: "hidden patches, %".into(),
        reference: 7,
        paper: Some(
            "ViT-L/16 on ImageNet-1K, 800 epochs; He et al. 2021, figure 5, linear probing".into(),
        ),
        variants: (linear.iter())
            .map(|&(percent, linear)| {
                let ratio = f64::from(percent) / 100.0;
                let mut variant = Variant::number(
                    f64::from(percent),
                    &[
                        "mask.sampler=random".to_string(),
                        format!("mask.ratio={ratio}"),
                    ],
                );
                variant.paper.insert("linear".into(), linear);
                variant
            })
            .collect(),
        ..numbers(
            "mask-ratio",
            "How many of an image's patches should be hidden?",
        )
    }
}

fn schedule(base: &Base) -> Study {
    // The paper's 200 to 1600 epochs: each twice as long as the one before.
    let paper = [
        (1, 83.3, 64.4),
        (2, 84.3, 69.7),
        (4, 84.9, 73.5),
        (8, 85.1, 75.1),
    ];
    Study {
        title: "Training schedule".into(),
        axis: "epochs".into(),
        rule: Some(format!(
            "The lengths are 1, 2, 4 and 8 times the base configuration's {} epochs; the paper's are 200, 400, 800 and \
             1600. Each is a run of its own with its own cosine, as in the paper; a seed's runs share the order of \
             the images and the masks.",
            base.epochs
        )),
        loss_comparable: true,
        reference: 0,
        paper: Some("ViT-L/16 on ImageNet-1K; He et al. 2021, figure 7".into()),
        variants: (paper.iter())
            .map(|&(times, finetune, linear)| {
                let epochs = times * base.epochs;
                Variant::number(epochs as f64, &[format!("optim.epochs={epochs}")])
                    .paper(finetune, linear)
            })
            .collect(),
        ..numbers("schedule", "How much does longer training help?")
    }
}

fn partial_finetune(base: &Base) -> Study {
    let paper = [(0.0, 73.5), (0.5, 79.1), (1.0, 81.0)];
    let doubled = (1..).map(|power| 2f64.powi(power));
    let blocks = [0.0, 0.5, 1.0]
        .into_iter()
        .chain(doubled)
        .take_while(|&blocks| blocks < base.depth as f64);
    let mut variants: Vec<Variant> = blocks
        .map(|blocks| {
            let mut variant = Variant::number(blocks, &[]);
            variant.protocol = Some(match blocks {
                0.0 => "linear".into(),
                _ => format!("partial:{blocks}"),
            });
            if let Some((_, top1)) = paper.iter().find(|(number, _)| *number == blocks) {
                variant.paper.insert("finetune".into(), *top1);
            }
            variant
        })
        .collect();
    let mut all = Variant::number(base.depth as f64, &[]);
    all.label = format!("all {}", base.depth);
    all.protocol = Some("finetune".into());
    all.paper.insert("finetune".into(), 84.9);
    variants.push(all);
    Study {
        title: "Partial fine-tuning".into(),
        axis: "fine-tuned blocks".into(),
        rule: Some(
            "0 blocks are a linear probe, half a block is the MLP of the last one; the blocks are doubled until all \
             are fine-tuned. Every value starts from the same pre-training."
                .into(),
        ),
        loss_comparable: true,
        reference: 0,
        paper: Some(
            "ViT-L/16 on ImageNet-1K, 800 epochs; He et al. 2021, section 4.3 and figure 9".into(),
        ),
        variants,
        ..numbers(
            "partial-finetune",
            "How many of the encoder's blocks must be fine-tuned?",
        )
    }
}

fn loss_region() -> Study {
    Study {
        title: "Loss region".into(),
        axis: "the loss is on".into(),
        reference: 0,
        paper: Some(
            "ViT-L/16 on ImageNet-1K, 800 epochs; He et al. 2021, section 3, where the loss on all patches costs about \
             0.5 points of fine-tuned accuracy"
                .into(),
        ),
        variants: vec![
            Variant::name("masked patches", &["model.loss_region=masked"]),
            Variant::name("all patches", &["model.loss_region=all"]),
        ],
        ..names(
            "loss-region",
            "Should the loss be on hidden patches only, or on the visible ones, too?",
        )
    }
}

/// A study whose values are numbers.
fn numbers(name: &str, question: &str) -> Study {
    Study {
        numeric: true,
        ..names(name, question)
    }
}

/// A study whose values have names.
fn names(name: &str, question: &str) -> Study {
    Study {
        name: name.into(),
        panel: None,
        title: String::new(),
        question: question.into(),
        axis: String::new(),
        numeric: false,
        rule: None,
        loss_comparable: false,
        reference: 0,
        paper: None,
        variants: Vec::new(),
    }
}

impl Variant {
    fn number(number: f64, set: &[String]) -> Self {
        Self {
            label: number.to_string(),
            number: Some(number),
            set: set.to_vec(),
            ..Self::default()
        }
    }

    fn name(label: &str, set: &[&str]) -> Self {
        Self {
            label: label.into(),
            set: set.iter().map(ToString::to_string).collect(),
            ..Self::default()
        }
    }

    fn paper(mut self, finetune: f64, linear: f64) -> Self {
        self.paper.insert("finetune".into(), finetune);
        self.paper.insert("linear".into(), linear);
        self
    }
}
