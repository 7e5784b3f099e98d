//! The convolutions of a tokenizer, from pixels to patches and back.

use tch::Tensor;
use tch::nn::{self, Path};

use super::config::Stage;

/// One stage of the encoder: a smaller feature map of more channels, then residual blocks.
#[derive(Debug)]
pub struct Down {
    down: nn::Conv2D,
    blocks: Vec<ResidualBlock>,
}

impl Down {
    pub fn new(path: &Path, stage: &Stage, blocks: usize) -> Self {
        let factor = stage.factor as i64;
        Self {
            down: conv(&(path / "down"), [stage.outer, stage.inner], factor, factor),
            blocks: residual_blocks(path, stage.inner, blocks),
        }
    }

    /// `[batch, outer, height, width]` to `[batch, inner, height / factor, width / factor]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.apply(&self.down);
        self.blocks.iter().fold(x, |x, block| block.forward(&x))
    }
}

/// One stage of the decoder: residual blocks, then a larger feature map of fewer channels.
#[derive(Debug)]
pub struct Up {
    blocks: Vec<ResidualBlock>,
    up: nn::Conv2D,
    factor: i64,
}

impl Up {
    pub fn new(path: &Path, stage: &Stage, blocks: usize) -> Self {
        let outputs = stage.outer * stage.factor * stage.factor;
        Self {
            blocks: residual_blocks(path, stage.inner, blocks),
            up: conv(&(path / "up"), [stage.inner, outputs], 1, 1),
            factor: stage.factor as i64,
        }
    }

    /// `[batch, inner, height, width]` to `[batch, outer, height * factor, width * factor]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let blocks = self.blocks.iter();
        let x = blocks.fold(x.shallow_clone(), |x, block| block.forward(&x));
        x.relu().apply(&self.up).pixel_shuffle(self.factor)
    }
}

/// Two convolutions that add to what they are given.
#[derive(Debug)]
struct ResidualBlock {
    conv1: nn::Conv2D,
    conv2: nn::Conv2D,
}

impl ResidualBlock {
    fn new(path: &Path, width: usize) -> Self {
        let conv = |name| conv(&(path / name), [width, width], 3, 1);
        Self {
            conv1: conv("conv1"),
            conv2: conv("conv2"),
        }
    }

    /// `[batch, width, height, width]` to the same shape.
    fn forward(&self, x: &Tensor) -> Tensor {
        x + x.relu().apply(&self.conv1).relu().apply(&self.conv2)
    }
}

fn residual_blocks(path: &Path, width: usize, count: usize) -> Vec<ResidualBlock> {
    (0..count)
        .map(|i| ResidualBlock::new(&(path / "blocks" / i), width))
        .collect()
}

/// A convolution of zeros, to be initialised once all parameters exist; padded, unless it strides.
fn conv(path: &Path, [inputs, outputs]: [usize; 2], kernel: i64, stride: i64) -> nn::Conv2D {
    let zeros = nn::Init::Const(0.0);
    let config = nn::ConvConfig {
        stride,
        padding: if stride == 1 { kernel / 2 } else { 0 },
        ws_init: zeros,
        bs_init: zeros,
        ..Default::default()
    };
    nn::conv2d(path, inputs as i64, outputs as i64, kernel, config)
}
