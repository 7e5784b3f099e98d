//! A picture put together from tiles and words.

pub mod display;

use std::convert::Infallible;
use std::io::Cursor;

use anyhow::Result;
use embedded_graphics::Pixel;
use embedded_graphics::mono_font::iso_8859_1::FONT_6X13;
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Point, Primitive, Size};
use embedded_graphics::primitives::{
    Circle, PrimitiveStyle, PrimitiveStyleBuilder, Rectangle, StrokeAlignment,
};
use embedded_graphics::text::{Baseline, Text};
use image::imageops::{self, FilterType};
use image::{GrayImage, ImageFormat, Rgb, RgbImage};

/// What words are written in: names of files may have more than ASCII's letters.
const FONT: MonoFont<'static> = FONT_6X13;
/// Height of a line of words, pixels.
pub const LINE: u32 = 17;

/// Images in several versions, side by side.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// Words above all else, each on lines of its own.
    pub notes: &'a [String],
    /// Words above the titles of some versions: the first of them, and the words.
    pub groups: &'a [(usize, &'static str)],
    /// What each version is.
    pub titles: &'a [&'a str],
    /// Images side by side.
    pub columns: usize,
    /// Of an image, pixels.
    pub height: u32,
    /// Of an image, pixels.
    pub width: u32,
}

/// One image of a [`Comparison`].
#[derive(Clone, Debug)]
pub struct Versions {
    /// Each version `[height, width, channels]` u8, with 1 or 3 channels.
    pub tiles: Vec<Vec<u8>>,
    /// Words below it; if any image has some, there is room for all of them.
    pub name: Option<String>,
}

/// Tiles are enlarged by whole factors up to about this side, pixels.
pub const TILE: u32 = 128;
const GAP: u32 = 4;

impl Comparison<'_> {
    /// Draws `images`.
    pub fn draw(&self, images: &[Versions]) -> Picture {
        let (height, width) = (self.height, self.width);
        let scale = (TILE / height.max(width)).max(1);
        let (tile_width, tile_height) = (width * scale + GAP, height * scale + GAP);
        let image_width = self.titles.len() as u32 * tile_width + 2 * GAP;
        let is_named = images.iter().any(|image| image.name.is_some());
        let row_height = tile_height + LINE * is_named as u32;
        let columns = images.len().min(self.columns) as u32;
        let rows = images.len().div_ceil(self.columns) as u32;

        let notes: Vec<String> = self
            .notes
            .iter()
            .flat_map(|note| wrapped(note, letters(columns * image_width - 2 * GAP)))
            .collect();
        let groups_top = LINE * notes.len() as u32;
        let titles_top = groups_top + LINE * !self.groups.is_empty() as u32;
        let tiles_top = titles_top + LINE;

        let mut picture = Picture::new(columns * image_width, tiles_top + rows * row_height + GAP);
        let tile_left =
            |column: u32, version: usize| column * image_width + GAP + version as u32 * tile_width;
        for column in 0..columns {
            for (first, words) in self.groups {
                picture.words(words, (tile_left(column, *first), groups_top + 2));
            }
            for (i, title) in self.titles.iter().enumerate() {
                picture.words(title, (tile_left(column, i), titles_top + 2));
            }
        }
        for (i, note) in notes.iter().enumerate() {
            picture.words(note, (GAP, LINE * i as u32 + 2));
        }
        for (i, image) in images.iter().enumerate() {
            let (column, row) = ((i % self.columns) as u32, (i / self.columns) as u32);
            let top = tiles_top + row * row_height;
            for (j, tile) in image.tiles.iter().enumerate() {
                picture.tile(tile, (height, width), scale, (tile_left(column, j), top));
            }
            if let Some(name) = &image.name {
                let name = ending(name, letters(image_width - 3 * GAP));
                picture.words(&name, (tile_left(column, 0), top + tile_height - 2));
            }
        }
        picture
    }
}

/// Images of a small picture, if they fit.
const SHOWN: usize = 3;
/// The largest file of a small picture that has more than one image, bytes.
const ROOM: usize = 90_000;
/// Tiles of a small picture are shrunk by whole factors to at most about this side, pixels.
const SMALL: u32 = 150;

impl Comparison<'_> {
    /// The first of `images`, one below the other, without words and small enough for many on a page.
    ///
    /// # Errors
    /// If it cannot be encoded to see how large it is.
    pub fn small(&self, images: &[Versions]) -> Result<Picture> {
        let mut shown = SHOWN.min(images.len());
        loop {
            let picture = self.tiles(&images[..shown]);
            if shown <= 1 || picture.png()?.len() <= ROOM {
                return Ok(picture);
            }
            shown -= 1;
        }
    }

    /// The tiles alone.
    fn tiles(&self, images: &[Versions]) -> Picture {
        let images: Vec<Versions> = (images.iter())
            .map(|image| Versions {
                tiles: image.tiles.clone(),
                name: None,
            })
            .collect();
        let bare = Comparison {
            notes: &[],
            groups: &[],
            columns: 1,
            ..*self
        };
        let Picture(whole) = bare.draw(&images);
        let (width, height) = (whole.width() - 3 * GAP, whole.height() - LINE - 2 * GAP);
        let tiles = imageops::crop_imm(&whole, GAP, LINE, width, height).to_image();
        let scale = (TILE / self.height.max(self.width)).max(1);
        let factor = (self.height.max(self.width) * scale).div_ceil(SMALL);
        Picture(imageops::thumbnail(&tiles, width / factor, height / factor))
    }
}

/// What is drawn of an epoch.
#[derive(Clone, Debug)]
pub struct Pictures {
    /// All images, with words.
    pub whole: Picture,
    /// A few of them, without.
    pub small: Option<Picture>,
}

/// How many letters fit into `width` pixels.
pub fn letters(width: u32) -> usize {
    (width / FONT.character_size.width) as usize
}

/// Words on lines of at most `longest` letters, where words are not longer.
pub fn wrapped(words: &str, longest: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= longest => {
                *line += " ";
                *line += word;
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// The last `longest` letters of a name, for the end of a path says most.
pub fn ending(name: &str, longest: usize) -> String {
    let count = name.chars().count();
    if count <= longest {
        return name.into();
    }
    let rest = name.chars().skip(count + 2 - longest.max(2));
    format!("..{}", rest.collect::<String>())
}

/// An RGB picture on a white ground.
#[derive(Clone, Debug)]
pub struct Picture(RgbImage);

impl Picture {
    /// A white picture.
    pub fn new(width: u32, height: u32) -> Self {
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
    pub fn tile(&mut self, pixels: &[u8], size: (u32, u32), scale: u32, (x, y): (u32, u32)) {
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

    /// Draws a border, `thick` pixels outside of `width` x `height` at `(x, y)`.
    pub fn frame(
        &mut self,
        (x, y): (u32, u32),
        (width, height): (u32, u32),
        thick: u32,
        colour: [u8; 3],
    ) {
        let style = PrimitiveStyleBuilder::new()
            .stroke_color(rgb(colour))
            .stroke_width(thick)
            .stroke_alignment(StrokeAlignment::Outside)
            .build();
        let Ok(()) = Rectangle::new(Point::new(x as i32, y as i32), Size::new(width, height))
            .into_styled(style)
            .draw(self);
    }

    /// Draws a disc around `(x, y)`.
    pub fn dot(&mut self, (x, y): (u32, u32), radius: u32, colour: [u8; 3]) {
        let centre = Point::new(x as i32, y as i32);
        let Ok(()) = Circle::with_center(centre, 2 * radius + 1)
            .into_styled(PrimitiveStyle::with_fill(rgb(colour)))
            .draw(self);
    }

    /// Writes words with their top left corner at `(x, y)`; beyond the right edge they are cut off.
    pub fn words(&mut self, words: &str, (x, y): (u32, u32)) {
        let style = MonoTextStyle::new(&FONT, Rgb888::new(40, 40, 40));
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

fn rgb([red, green, blue]: [u8; 3]) -> Rgb888 {
    Rgb888::new(red, green, blue)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Images whose tiles are of one colour each, or noise.
    fn drawn(side: u32, count: usize, noise: bool) -> Picture {
        let mut random = 1_u32;
        let images: Vec<Versions> = (0..count)
            .map(|row| Versions {
                tiles: (0..4)
                    .map(|tile| {
                        let pixel = |i: u32| {
                            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                            match (noise, i % 3) {
                                (true, _) => (random >> 24) as u8,
                                (false, 0) => tile * 40,
                                (false, 1) => row as u8 * 30,
                                (false, _) => 7,
                            }
                        };
                        (0..3 * side * side).map(pixel).collect()
                    })
                    .collect(),
                name: Some("a name".into()),
            })
            .collect();
        let comparison = Comparison {
            notes: &["a note".into()],
            groups: &[(2, "a group")],
            titles: &["original", "masked", "prediction", "+ visible"],
            columns: 2,
            height: side,
            width: side,
        };
        comparison.small(&images).unwrap()
    }

    #[test]
    fn a_small_picture_has_the_tiles_of_three_images_and_no_words() {
        for side in [32, 128] {
            let Picture(found) = drawn(side, 8, false);
            assert_eq!(found.dimensions(), (4 * 132 - 4, 3 * 132 - 4));
            let pixel = |x: u32, y: u32| found.get_pixel(x, y).0;
            assert_eq!(pixel(0, 0), [0, 0, 7]);
            assert_eq!(pixel(found.width() - 1, 0), [120, 0, 7]);
            assert_eq!(pixel(0, found.height() - 1), [0, 60, 7]);
            assert_eq!(pixel(130, 0), [255; 3]);
        }
    }

    #[test]
    fn large_and_noisy_pictures_show_fewer_and_smaller_images() {
        let noisy = drawn(128, 8, true);
        assert_eq!((noisy.width(), noisy.height()), (524, 128));
        let large = drawn(224, 8, false);
        assert_eq!((large.width(), large.height()), (454, 340));
        let one = drawn(32, 1, false);
        assert_eq!((one.width(), one.height()), (524, 128));
    }
}
