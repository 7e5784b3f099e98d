//! What commands ask alike of images.

use clap::ValueEnum;
use mae_data::Split;
use mae_train::train::precision::Precision;

/// A part of CIFAR's images.
#[derive(Clone, Copy, ValueEnum)]
pub enum CifarSplit {
    Train,
    Test,
}

impl From<CifarSplit> for Split {
    fn from(split: CifarSplit) -> Self {
        match split {
            CifarSplit::Train => Self::Train,
            CifarSplit::Test => Self::Test,
        }
    }
}

/// What matrix products are computed in.
#[derive(Clone, Copy, ValueEnum)]
pub enum Products {
    Fp32,
    Bf16,
    Fp16,
}

impl From<Products> for Precision {
    fn from(products: Products) -> Self {
        match products {
            Products::Fp32 => Self::Fp32,
            Products::Bf16 => Self::Bf16,
            Products::Fp16 => Self::Fp16,
        }
    }
}
