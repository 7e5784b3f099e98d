//! What a classifier is built from, and the published choices.

use serde::{Deserialize, Serialize};

use crate::error::invalid;
use crate::{MaeConfig, Result};

/// What a classifier is built from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// The encoder's dimensions and the image size; the decoder's are not used.
    pub encoder: MaeConfig,
    /// Number of classes, at least 1.
    pub classes: usize,
    /// How tokens become one feature.
    pub pooling: Pooling,
    /// How the head's weight starts.
    pub head_init: HeadInit,
    /// Rate at which the last block's residual branches are dropped in training, in `[0, 1)`.
    pub drop_path: f64,
    /// What the classes are called, in label order; empty where nobody named them.
    #[serde(default)]
    pub class_names: Vec<String>,
    /// Which images the classifier is for.
    #[serde(default)]
    pub view: View,
}

/// What is done to an image file before the classifier sees it, beside its resizing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The share of the resized image's shorter side that the centre crop takes, from 0.01 to 1.
    pub crop_share: f64,
    /// Which values were not measured: `auto`, `none`, `nan` or a number.
    pub nodata: String,
}

impl Default for View {
    /// All of the shorter side, and what each file says of its values.
    fn default() -> Self {
        Self {
            crop_share: 1.0,
            nodata: "auto".into(),
        }
    }
}

/// How tokens become one feature of `embed_dim` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean of the patch tokens, then a norm of its own, `fc_norm`, in place of the encoder's `norm`.
    MeanThenNorm,
    /// The encoder's `norm`, then the mean of the patch tokens.
    NormThenMean,
    /// The encoder's `norm`, then the class token.
    ClassToken,
}

/// How the head's weight starts; its bias starts at zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadInit {
    /// N(0, 2e-5), as published for fine-tuning.
    FineTune,
    /// N(0, 0.01), as published for linear probing.
    LinearProbe,
    /// Xavier uniform, as every other weight of a model that starts from nothing.
    Scratch,
}

impl ClassifierConfig {
    /// The published fine-tuning of ViT-Base: mean, then norm; drop path 0.1.
    ///
    /// Source: He et al. 2021, appendix A.1, table 9.
    pub fn fine_tune(encoder: MaeConfig, classes: usize) -> Self {
        Self {
            encoder,
            classes,
            pooling: Pooling::MeanThenNorm,
            head_init: HeadInit::FineTune,
            drop_path: 0.1,
            class_names: Vec::new(),
            view: View::default(),
        }
    }

    /// The published linear probing: the class token, no drop path.
    ///
    /// Source: He et al. 2021, appendix A.1, table 10.
    pub fn linear_probe(encoder: MaeConfig, classes: usize) -> Self {
        Self {
            encoder,
            classes,
            pooling: Pooling::ClassToken,
            head_init: HeadInit::LinearProbe,
            drop_path: 0.0,
            class_names: Vec::new(),
            view: View::default(),
        }
    }

    /// Checks that a classifier can be built from it.
    ///
    /// # Errors
    /// [`ModelError::Config`](crate::ModelError::Config) or [`ModelError::Grid`](crate::ModelError::Grid)
    /// with the first key that does not fit.
    pub fn validate(&self) -> Result<()> {
        self.encoder.validate()?;
        if self.classes == 0 {
            return Err(invalid("classes", 0, "at least 1".into()));
        }
        if !(0.0..1.0).contains(&self.drop_path) {
            let expected = "a rate of at least 0 and below 1".into();
            return Err(invalid("drop_path", self.drop_path, expected));
        }
        let named = self.class_names.len();
        if named != 0 && named != self.classes {
            let expected = format!("{}, one a class, or none", self.classes);
            return Err(invalid("class_names", named, expected));
        }
        if !(0.01..=1.0).contains(&self.view.crop_share) {
            let expected = "a share from 0.01 to 1".into();
            return Err(invalid("view.crop_share", self.view.crop_share, expected));
        }
        Ok(())
    }
}
