//! A few rows of the reconstructions that mae-train draws, small enough for many on a page.

use std::io::Cursor;

use anyhow::{Context, Result, ensure};
use png::{BitDepth, ColorType, Compression, Transformations};

/// What mae-train's picture is made of: images in two columns, four tiles each, below one to three lines of words.
const IMAGES: (usize, usize) = (2, 4);
const TILES: usize = 4;
const GAP: usize = 4;
const LINE: usize = 17;

/// Images that are shown if they fit.
const ROWS: usize = 3;
/// The largest file that shows more than one image, bytes.
const ROOM: usize = 90_000;
/// Tiles are shown at a whole fraction of their size, at most about this wide, pixels.
const TILE: usize = 150;

/// Part of a picture.
pub struct Part {
    pub png: Vec<u8>,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// The first images of the picture `png`, without its words; all of it if it is laid out in another way.
///
/// # Errors
/// If it is no PNG.
pub fn first_images(png: &[u8]) -> Result<Part> {
    let picture = Rgb::decode(png)?;
    let Some(tiles) = Tiles::of(picture.width, picture.height) else {
        let factor = picture.width.div_ceil(TILES * TILE);
        return picture.shrunk(factor).part();
    };
    let mut part = None;
    for rows in (1..=ROWS).rev() {
        let (width, height) = (
            TILES * tiles.width_and_gap - GAP,
            rows * tiles.height_and_gap - GAP,
        );
        let images = picture.crop((GAP, tiles.top), (width, height));
        let factor = tiles.width_and_gap.div_ceil(TILE);
        let smaller = images.shrunk(factor).part()?;
        let fits = smaller.png.len() <= ROOM;
        part = Some(smaller);
        if fits {
            break;
        }
    }
    part.context("a picture has a row")
}

/// Where the tiles are.
#[derive(Debug, PartialEq)]
struct Tiles {
    /// Height of the words above them.
    top: usize,
    width_and_gap: usize,
    height_and_gap: usize,
}

impl Tiles {
    fn of(width: usize, height: usize) -> Option<Self> {
        let (columns, rows) = IMAGES;
        let parts = |length: usize, parts: usize| {
            (length.is_multiple_of(parts) && length / parts > GAP).then_some(length / parts)
        };
        let image = parts(width, columns)?;
        let width_and_gap = parts(image.checked_sub(2 * GAP)?, TILES)?;
        [LINE, 2 * LINE, 3 * LINE].into_iter().find_map(|top| {
            Some(Self {
                top,
                width_and_gap,
                height_and_gap: parts(height.checked_sub(top + GAP)?, rows)?,
            })
        })
    }
}

struct Rgb {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Rgb {
    fn decode(png: &[u8]) -> Result<Self> {
        let mut decoder = png::Decoder::new(Cursor::new(png));
        decoder.set_transformations(Transformations::normalize_to_color8());
        let mut reader = decoder.read_info()?;
        let size = reader.output_buffer_size().context("it is too large")?;
        let mut pixels = vec![0; size];
        let info = reader.next_frame(&mut pixels)?;
        ensure!(
            info.bit_depth == BitDepth::Eight,
            "it has samples of other than 8 bits"
        );
        let colors = match info.color_type {
            ColorType::Rgb => pixels,
            ColorType::Rgba => pixels.chunks(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
            ColorType::Grayscale => pixels.iter().flat_map(|&grey| [grey; 3]).collect(),
            ColorType::GrayscaleAlpha => pixels.chunks(2).flat_map(|p| [p[0]; 3]).collect(),
            ColorType::Indexed => anyhow::bail!("its colours are not expanded"),
        };
        Ok(Self {
            width: info.width as usize,
            height: info.height as usize,
            pixels: colors,
        })
    }

    fn crop(&self, (left, top): (usize, usize), (width, height): (usize, usize)) -> Self {
        let rows = self.pixels.chunks(3 * self.width).skip(top).take(height);
        Self {
            width,
            height,
            pixels: rows
                .flat_map(|row| &row[3 * left..3 * (left + width)])
                .copied()
                .collect(),
        }
    }

    /// The means over squares of `factor` x `factor` pixels; what is left at the ends is cut off.
    fn shrunk(self, factor: usize) -> Self {
        if factor <= 1 {
            return self;
        }
        let (width, height) = (self.width / factor, self.height / factor);
        let mut pixels = Vec::with_capacity(3 * width * height);
        for y in 0..height {
            for x in 0..width {
                for channel in 0..3 {
                    let sum: usize = (0..factor * factor)
                        .map(|i| (y * factor + i / factor, x * factor + i % factor))
                        .map(|(y, x)| usize::from(self.pixels[3 * (y * self.width + x) + channel]))
                        .sum();
                    pixels.push((sum / (factor * factor)) as u8);
                }
            }
        }
        Self {
            width,
            height,
            pixels,
        }
    }

    fn part(&self) -> Result<Part> {
        let (width, height) = (self.width as u32, self.height as u32);
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, width, height);
        encoder.set_color(ColorType::Rgb);
        encoder.set_compression(Compression::High);
        encoder.write_header()?.write_image_data(&self.pixels)?;
        Ok(Part { png, width, height })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A picture as mae-train draws it of tiles of `side` pixels; the color tells the tile and its row.
    pub fn drawn(side: usize, lines: usize, noise: bool) -> Vec<u8> {
        let (width, height) = (
            2 * (4 * (side + GAP) + 2 * GAP),
            lines * LINE + 4 * (side + GAP) + GAP,
        );
        let mut pixels = vec![255; 3 * width * height];
        let mut random = 1_u32;
        for y in 0..height {
            for x in 0..width {
                let image = x % (width / 2);
                let (Some(x_in), Some(y_in)) =
                    (image.checked_sub(GAP), y.checked_sub(lines * LINE))
                else {
                    continue;
                };
                let (tile, row) = (x_in / (side + GAP), y_in / (side + GAP));
                if x_in % (side + GAP) >= side || y_in % (side + GAP) >= side || tile > 3 {
                    continue;
                }
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let blue = if noise { (random >> 24) as u8 } else { 7 };
                let color = [tile as u8 * 40, row as u8 * 40, blue];
                pixels[3 * (y * width + x)..][..3].copy_from_slice(&color);
            }
        }
        let picture = Rgb {
            width,
            height,
            pixels,
        };
        picture.part().unwrap().png
    }

    #[test]
    fn the_first_three_images_are_shown_without_words() {
        for lines in [1, 2] {
            let part = first_images(&drawn(128, lines, false)).unwrap();
            assert_eq!((part.width, part.height), (4 * 132 - 4, 3 * 132 - 4));
            let found = Rgb::decode(&part.png).unwrap();
            let pixel = |x: usize, y: usize| &found.pixels[3 * (y * found.width + x)..][..3];
            assert_eq!(pixel(0, 0), [0, 0, 7]);
            assert_eq!(pixel(found.width - 1, 0), [120, 0, 7]);
            assert_eq!(pixel(0, found.height - 1), [0, 80, 7]);
            assert_eq!(pixel(130, 0), [255; 3]);
        }
    }

    #[test]
    fn large_and_noisy_pictures_show_fewer_and_smaller_images() {
        let part = first_images(&drawn(128, 1, true)).unwrap();
        assert!(
            part.png.len() <= ROOM && part.width == 524,
            "{}",
            part.width
        );
        assert_eq!(part.height, 128);
        let part = first_images(&drawn(224, 1, false)).unwrap();
        assert_eq!((part.width, part.height), (454, 340));
    }

    #[test]
    fn other_pictures_are_shown_whole() {
        let picture = Rgb {
            width: 5,
            height: 3,
            pixels: vec![9; 45],
        };
        let part = first_images(&picture.part().unwrap().png).unwrap();
        assert_eq!((part.width, part.height), (5, 3));
        assert!(first_images(b"no picture").is_err());
    }

    #[test]
    fn the_layout_is_that_of_the_picture_in_the_readme() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/images/quickstart.png");
        let part = first_images(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!((part.width, part.height), (524, 392));
    }
}
