//! JPEG: a check that all of it is there, libjpeg for all kinds, and a decoder of crops for the usual one.
//!
//! libjpeg fills what is missing or damaged with grey, and no decoder known to us counts what it filled.
//! So [`decode`] first reads every code of every scan, counts the blocks, and hands over only what is whole.
//!
//! [`decode_view`] makes the pixels of a crop and no others.
//! A training image is a small part of a photograph, at another size.
//! libjpeg makes every pixel at full size in full colour, and then most of the work
//! is thrown away.
//! This one
//!
//! - stops reading below the crop, and makes no pixels to its left, its right or above it;
//! - resizes luma and chroma as they are stored, chroma at half the size, and converts only the
//!   pixels of the result to RGB.
//!
//! It knows baseline JPEGs of 8 bits in one scan, grey or YCbCr with whole or halved chroma.
//! Of anything else, and of anything damaged, it says `None`, and the library decides.
//!
//! | file | what |
//! |---|---|
//! | `header.rs`, `standard.rs` | the segments between which the scans are, and the tables of files without any |
//! | `check.rs`, `progressive.rs` | whether every block is there, of any kind of JPEG |
//! | `general.rs` | from any kind of JPEG to all its pixels, by libjpeg |
//! | `usual.rs` | whether a file is of the kind whose crops are decoded here |
//! | `bits.rs`, `huffman.rs` | from bytes to symbols and numbers |
//! | `scan.rs`, `idct.rs` | from numbers to planes of pixels |
//! | `kernel.rs`, `resample.rs` | from planes to the crop at its size |
//! | `dispatch.rs`, `x86.rs` | for the best instructions of this processor |

mod bits;
mod check;
mod dispatch;
mod general;
mod header;
mod huffman;
mod idct;
mod kernel;
mod progressive;
mod resample;
mod scan;
mod standard;
mod usual;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::cell::RefCell;
use std::ops::Range;

pub(crate) use self::general::decode;
use self::kernel::{Axis, Kernel};
use self::resample::Resampler;
use self::scan::Scanner;
use self::usual::Usual;
use crate::image::{CropBox, Image};

/// What is made of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct View {
    /// The part that is taken, inside the image.
    pub(crate) crop: CropBox,
    /// The size that it gets, in pixels.
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Whether left and right are exchanged.
    pub(crate) hflip: bool,
}

impl View {
    /// Whether this is all of an image, at its own size.
    pub(crate) fn is_whole(&self, height: usize, width: usize) -> bool {
        let whole = CropBox {
            top: 0.0,
            left: 0.0,
            height: height as f64,
            width: width as f64,
        };
        self.crop == whole && (self.height, self.width) == (height, width)
    }
}

thread_local! {
    /// The memory of a thread, so that a loader allocates it once.
    static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new());
}

struct Decoder {
    scanner: Scanner,
    resampler: Resampler,
}

/// Decodes the view that `choose` wants of an image of a height and a width.
///
/// `None` if this decoder is not for `content`.
/// Rows below the view are not looked at, but for the markers among them and at their end, for zeros
/// that were written over them, and for all that is missing where they are suspiciously short.
pub(crate) fn decode_view(
    content: &[u8],
    channels: usize,
    choose: impl FnOnce(usize, usize) -> View,
) -> Option<Image> {
    let usual = Usual::parse(content)?;
    let view = choose(usual.header.height, usual.header.width);
    DECODER.with_borrow_mut(|decoder| {
        let pixels = dispatch::decode(decoder, &usual, &view, channels);
        decoder.scanner.shrink();
        Image::new(view.height, view.width, channels, pixels?).ok()
    })
}

impl Decoder {
    fn new() -> Decoder {
        Decoder {
            scanner: Scanner::new(),
            resampler: Resampler::default(),
        }
    }

    #[inline(always)]
    fn decode(&mut self, usual: &Usual, view: &View, channels: usize) -> Option<Vec<u8>> {
        let crop = view.crop;
        let down = Axis {
            side: usual.header.height,
            start: crop.top,
            len: crop.height,
            pixels: view.height,
        };
        let across = Axis {
            side: usual.header.width,
            start: crop.left,
            len: crop.width,
            pixels: view.width,
        };
        let subsampling = usual.luma_blocks;
        let down = down.kernels(subsampling[0]);
        let mut across = across.kernels(subsampling[1]);
        if view.hflip {
            across.iter_mut().for_each(Kernel::reverse);
        }
        let rows = mcus(&down, subsampling[0]);
        let columns = mcus(&across, subsampling[1]);
        self.scanner.decode(usual, rows, columns)?;
        let mut pixels = vec![0; view.height * view.width * channels];
        let planes = &self.scanner.planes[..usual.header.components.len()];
        self.resampler
            .resample(planes, &across, &down, channels, &mut pixels);
        Some(pixels)
    }
}

/// The MCUs, along one axis, that kernels of luma and chroma need.
fn mcus([luma, chroma]: &[Kernel; 2], luma_blocks: usize) -> Range<usize> {
    let (luma, chroma) = (luma.sources(), chroma.sources());
    let size = 8 * luma_blocks;
    let start = (luma.start / size).min(chroma.start / 8);
    start..luma.end.div_ceil(size).max(chroma.end.div_ceil(8))
}

#[cfg(test)]
mod tests;
