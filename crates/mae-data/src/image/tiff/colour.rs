//! What the values of a TIFF file mean.

use super::page::{JPEG, Page, YCBCR};
use crate::image::Meaning;
use crate::pixels::Pixels;

/// TIFF's numbers for what values mean.
const WHITE_IS_ZERO: u16 = 0;
const BLACK_IS_ZERO: u16 = 1;
const RGB: u16 = 2;
const PALETTE: u16 = 3;
const MASK: u16 = 4;
const CMYK: u16 = 5;

/// What the values of a page are made into.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Colour {
    /// They stay what they are.
    AsStored(Meaning),
    Inverted,
    /// The colours of the indices, `[colours, 3]`.
    Palette(Vec<u8>),
    Cmyk,
    YCbCr,
}

impl Colour {
    /// `map` is the page's palette, if it has one, and `subsampling` how much smaller its chroma is.
    pub(super) fn of(
        page: &Page,
        map: Option<Vec<u16>>,
        subsampling: &[u16],
    ) -> Result<Colour, String> {
        let is_alpha = matches!(page.extra[..], [1 | 2]);
        let colours = page.samples - usize::from(is_alpha).min(page.samples);
        let refuse = |what: &str| {
            Err(format!(
                "its colours are {what}, which cannot be read; convert it: gdal_translate -expand rgb IN OUT, or save \
                 it as RGB"
            ))
        };
        match page.meaning {
            WHITE_IS_ZERO if page.samples == 1 && page.format == 1 && page.bits <= 16 => {
                Ok(Colour::Inverted)
            }
            WHITE_IS_ZERO | BLACK_IS_ZERO | MASK => Ok(Colour::AsStored(match page.samples {
                1 => Meaning::Picture,
                _ => Meaning::Bands,
            })),
            RGB => Ok(Colour::AsStored(match page.samples {
                3 => Meaning::Picture,
                4 if is_alpha || page.extra.is_empty() => Meaning::Picture,
                _ => Meaning::Bands,
            })),
            PALETTE if page.samples == 1 && page.bits <= 8 && page.format == 1 => {
                let map = map.filter(|map| map.len() == 3 << page.bits);
                let map = map.ok_or("its palette is missing or of another length; save it anew")?;
                // Some writers have put bytes where 16 bits are meant, and every reader follows them.
                let shift = if map.iter().all(|&value| value < 256) {
                    0
                } else {
                    8
                };
                let colours = map.len() / 3;
                let value = |at: usize| (map[at % 3 * colours + at / 3] >> shift) as u8;
                Ok(Colour::Palette((0..map.len()).map(value).collect()))
            }
            CMYK if colours == 4 => Ok(Colour::Cmyk),
            YCBCR if page.samples == 3 && page.bits == 8 && page.format == 1 => {
                match page.compression == JPEG || matches!(subsampling, [1, 1]) {
                    true => Ok(Colour::YCbCr),
                    false => refuse("YCbCr with smaller chroma that is not compressed as JPEG"),
                }
            }
            PALETTE => refuse("a palette of more than 8 bits, or with more values"),
            CMYK => refuse("CMYK with more inks"),
            YCBCR => refuse("YCbCr with more values, or of more than 8 bits"),
            8..=10 => refuse("L*a*b*"),
            32_803 | 34_892 => refuse("a camera's raw values"),
            other => refuse(&format!("of unknown kind {other}")),
        }
    }

    /// Channels that the page has as an image, and what they are.
    pub(super) fn channels(&self, samples: usize) -> (usize, Meaning) {
        match self {
            Colour::AsStored(meaning) => (samples, *meaning),
            Colour::Inverted => (1, Meaning::Picture),
            Colour::Palette(_) | Colour::Cmyk | Colour::YCbCr => (3, Meaning::Picture),
        }
    }

    /// Makes colours of stored values, of `samples` a pixel; where one of them is missing, the colours are, too.
    pub(super) fn apply(&self, pixels: Pixels, samples: usize) -> Result<Pixels, String> {
        Ok(match (self, pixels) {
            (Colour::AsStored(_), pixels) => pixels,
            (Colour::Inverted, Pixels::U8(values)) => {
                Pixels::U8(values.into_iter().map(|value| u8::MAX - value).collect())
            }
            (Colour::Inverted, Pixels::F32(values)) => {
                Pixels::F32(values.into_iter().map(|value| 1.0 - value).collect())
            }
            (Colour::Palette(map), pixels) => {
                let colour = |index: usize| map.get(3 * index..3 * index + 3);
                let outside = "a pixel has a colour that its palette has not; save it anew";
                match pixels {
                    Pixels::U8(values) => {
                        let colours = values.iter().map(|&index| colour(index.into()));
                        let colours: Option<Vec<&[u8]>> = colours.collect();
                        Pixels::U8(colours.ok_or(outside)?.concat())
                    }
                    Pixels::F32(values) => {
                        let mut colours = Vec::with_capacity(3 * values.len());
                        for index in values {
                            if index.is_nan() {
                                colours.extend([f32::NAN; 3]);
                                continue;
                            }
                            let colour = colour((index * 255.0).round() as usize).ok_or(outside)?;
                            colours
                                .extend(colour.iter().map(|&value| crate::pixels::from_u8(value)));
                        }
                        Pixels::F32(colours)
                    }
                }
            }
            (Colour::Cmyk, Pixels::U8(values)) => {
                // As the library of pictures does it.
                let of = |pixel: &[u8]| {
                    let light = 1.0 - f32::from(pixel[3]) / 255.0;
                    [0, 1, 2].map(|ink| ((255.0 - f32::from(pixel[ink])) * light) as u8)
                };
                Pixels::U8(values.chunks_exact(samples).flat_map(of).collect())
            }
            (Colour::Cmyk, Pixels::F32(values)) => {
                let of = |pixel: &[f32]| [0, 1, 2].map(|ink| (1.0 - pixel[ink]) * (1.0 - pixel[3]));
                Pixels::F32(values.chunks_exact(samples).flat_map(of).collect())
            }
            (Colour::YCbCr, pixels) => match pixels {
                Pixels::U8(values) => {
                    let of = |pixel: &[u8]| {
                        let [y, cb, cr] = [0, 1, 2].map(|at| f32::from(pixel[at]));
                        rgb(y, cb - 128.0, cr - 128.0)
                            .map(|value| (value + 0.5).clamp(0.0, 255.0) as u8)
                    };
                    Pixels::U8(values.chunks_exact(3).flat_map(of).collect())
                }
                Pixels::F32(_) => unreachable!("its values are read as bytes"),
            },
        })
    }
}

/// JFIF's colours; chroma has its zero at 0.
///
/// Source: ITU-T T.871, section 7.
fn rgb(y: f32, cb: f32, cr: f32) -> [f32; 3] {
    [
        y + 1.402 * cr,
        y - 0.344_136 * cb - 0.714_136 * cr,
        y + 1.772 * cb,
    ]
}
