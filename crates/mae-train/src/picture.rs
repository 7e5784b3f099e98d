//! A picture put together from tiles and words.

use std::convert::Infallible;
use std::io::Cursor;

use anyhow::Result;
use embedded_graphics::Pixel;
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_6X13;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Point, Size};
use embedded_graphics::text::{Baseline, Text};
use image::imageops::{self, FilterType};
use image::{GrayImage, ImageFormat, Rgb, RgbImage};

/// Height of a line of words, pixels.
const LINE: u32 = 17;

/// Images in several versions, side by side.
#[derive(Clone, Debug)]
pub struct Comparison<const VERSIONS: usize> {
    /// What each version is.
    pub titles: [&'static str; VERSIONS],
    /// Lines of words below the titles.
    pub note: Option<String>,
    /// Images side by side.
    pub columns: usize,
    /// Of an image, pixels.
    pub height: u32,
    /// Of an image, pixels.
    pub width: u32,
}

/// Tiles are enlarged by whole factors up to about this side, pixels.
const TILE: u32 = 128;
const GAP: u32 = 4;

impl<const VERSIONS: usize> Comparison<VERSIONS> {
    /// Draws `images`, each version `[height, width, channels]` u8.
    pub fn draw(&self, images: &[[Vec<u8>; VERSIONS]]) -> Picture {
        let (height, width) = (self.height, self.width);
        let note = self.note.as_deref().unwrap_or_default();
        let scale = (TILE / height.max(width)).max(1);
        let (tile_width, tile_height) = (width * scale + GAP, height * scale + GAP);
        let image_width = VERSIONS as u32 * tile_width + 2 * GAP;
        let words_height = LINE * (1 + note.lines().count() as u32);
        let columns = images.len().min(self.columns) as u32;
        let rows = images.len().div_ceil(self.columns) as u32;
        let mut picture = Picture::new(
            columns * image_width,
            words_height + rows * tile_height + GAP,
        );
        for column in 0..columns {
            for (i, title) in self.titles.iter().enumerate() {
                let x = column * image_width + GAP + i as u32 * tile_width;
                picture.words(title, (x, 2));
            }
        }
        for (line, words) in (1..).zip(note.lines()) {
            picture.words(words, (GAP, 2 + line * LINE));
        }
        for (i, versions) in images.iter().enumerate() {
            let (column, row) = ((i % self.columns) as u32, (i / self.columns) as u32);
            for (j, tile) in versions.iter().enumerate() {
                let x = column * image_width + GAP + j as u32 * tile_width;
                let y = words_height + row * tile_height;
                picture.tile(tile, (height, width), scale, (x, y));
            }
        }
        picture
    }
}

/// An RGB picture on a white ground.
#[derive(Clone, Debug)]
pub struct Picture(RgbImage);

impl Picture {
    /// A white picture.
    fn new(width: u32, height: u32) -> Self {
        Self(RgbImage::from_pixel(width, height, Rgb([255, 255, 255])))
    }

    /// Pixels.
    pub fn width(&self) -> u32 {
        self.0.width()
    }

    /// Pixels.
    pub fn height(&self) -> u32 {
        self.0.height()
    }

    /// Puts an image of `[height, width, channels]` u8 with 1 or 3 channels at `(x, y)`, `scale` times as large.
    fn tile(&mut self, pixels: &[u8], size: (u32, u32), scale: u32, (x, y): (u32, u32)) {
        let (height, width) = size;
        let tile = match pixels.len() as u32 / (height * width) {
            1 => GrayImage::from_raw(width, height, pixels.to_vec())
                .map(|grey| image::DynamicImage::from(grey).to_rgb8()),
            _ => RgbImage::from_raw(width, height, pixels.to_vec()),
        };
        let tile = tile.expect("the tile is height x width x channels long");
        // Pixels stay pixels: smoothing would make a prediction look better than it is.
        let tile = imageops::resize(&tile, width * scale, height * scale, FilterType::Nearest);
        imageops::replace(&mut self.0, &tile, x.into(), y.into());
    }

    /// Writes words with their top left corner at `(x, y)`; beyond the right edge they are cut off.
    fn words(&mut self, words: &str, (x, y): (u32, u32)) {
        let style = MonoTextStyle::new(&FONT_6X13, Rgb888::new(40, 40, 40));
        let Ok(_) =
            Text::with_baseline(words, Point::new(x as i32, y as i32), style, Baseline::Top)
                .draw(self);
    }

    /// As a PNG file.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0
            .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)?;
        Ok(bytes)
    }
}

impl OriginDimensions for Picture {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Picture {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Infallible> {
        for Pixel(point, colour) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y)) else {
                continue;
            };
            if let Some(pixel) = self.0.get_pixel_mut_checked(x, y) {
                *pixel = Rgb([colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}
