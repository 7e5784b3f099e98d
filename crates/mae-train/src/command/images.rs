//! What commands ask alike of images.

use clap::{Args, ValueEnum};
use mae_data::{Nodata, Split};
use mae_train::train::precision::Precision;

/// What stands for missing values of the images that are given as `data`.
#[derive(Args)]
pub struct NodataArgs {
    /// What stands for a value that was not measured, in TIFF, PNG and Netpbm files and arrays: a number, nan, auto for
    /// what each file says, or none [default: as in the run's training, or auto]
    #[arg(
        long,
        value_name = "VALUE",
        requires = "data",
        allow_negative_numbers = true
    )]
    pub nodata: Option<Nodata>,
}

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
