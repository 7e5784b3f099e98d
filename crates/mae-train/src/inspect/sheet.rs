//! A few images of each class on one page.

use std::path::Path;

use anyhow::{Context, Result};
use mae_data::{Dataset, Image, Split};

use super::images::Images;
use crate::data::open_path_or_image;
use crate::picture::{LINE, Picture, ending, letters, wrapped};

/// Images on a page.
const IMAGES: usize = 48;
const COLUMNS: usize = 8;
/// The side of the square that an image is made to fit into, by a whole factor if it is smaller, pixels.
const SIDE: usize = 128;
const GAP: usize = 6;

/// Draws some of `images`, the classes in turn and evenly spaced within each, with their names.
/// Broken ones are left out.
///
/// # Errors
/// If there are no images, or none can be read.
pub fn contact_sheet(images: &Images) -> Result<Picture> {
    let dataset = open_path_or_image(&images.path, Split::Train, images.channels, images.nodata)?;
    let display = images.display(dataset.kind());
    let mut broken = None;
    let images: Vec<(Image, String)> = choose(dataset.as_ref())
        .into_iter()
        .filter_map(|index| match dataset.image(index) {
            Ok(image) => Some((image, label(dataset.as_ref(), index))),
            Err(error) => {
                broken = Some(error);
                None
            }
        })
        .collect();
    if let (true, Some(error)) = (images.is_empty(), broken) {
        return Err(error).context("none of the images for the contact sheet can be read");
    }
    let rows = images.len().div_ceil(COLUMNS);
    let columns = images.len().min(COLUMNS);
    let (cell_width, cell_height) = (SIDE + GAP, SIDE + GAP + LINE as usize);
    let width = (columns * cell_width + GAP) as u32;
    let note = display.note();
    let notes = note.map_or_else(Vec::new, |note| {
        wrapped(&note, letters(width - 2 * GAP as u32))
    });
    let notes_height = notes.len() * LINE as usize;
    let mut picture = Picture::new(width, (notes_height + rows * cell_height + GAP) as u32);
    for (i, line) in notes.iter().enumerate() {
        picture.words(line, (GAP as u32, i as u32 * LINE + 2));
    }
    for (i, (image, name)) in images.iter().enumerate() {
        let left = GAP + i % COLUMNS * cell_width;
        let top = notes_height + GAP + i / COLUMNS * cell_height;
        let image = fitting(image)?;
        let (height, width) = (image.height(), image.width());
        let scale = SIDE / height.max(width);
        let x = left + (SIDE - width * scale) / 2;
        let y = top + (SIDE - height * scale) / 2;
        let pixels = display.show_pixels(image.into_pixels());
        picture.tile(
            &pixels,
            (height as u32, width as u32),
            scale as u32,
            (x as u32, y as u32),
        );
        let name = ending(name, letters(SIDE as u32));
        picture.words(&name, (left as u32, (top + SIDE + 1) as u32));
    }
    Ok(picture)
}

/// Indices of up to [`IMAGES`] images.
fn choose(dataset: &dyn Dataset) -> Vec<usize> {
    let classes = dataset.classes().len();
    let mut of_class: Vec<Vec<usize>> = vec![Vec::new(); classes.max(1)];
    for index in 0..dataset.len() {
        let class = dataset.label(index).map_or(0, |label| label as usize);
        if let Some(images) = of_class.get_mut(class) {
            images.push(index);
        }
    }
    of_class.retain(|images| !images.is_empty());
    let of_class = evenly(&of_class, IMAGES);
    // As many of each class, and of the first ones one more.
    let (each, more) = (
        IMAGES / of_class.len().max(1),
        IMAGES % of_class.len().max(1),
    );
    (of_class.iter().enumerate())
        .flat_map(|(i, images)| evenly(images, each + (i < more) as usize))
        .copied()
        .collect()
}

/// Up to `most` items at equal distances.
fn evenly<T>(items: &[T], most: usize) -> Vec<&T> {
    let chosen = items.len().min(most);
    (0..chosen)
        .map(|i| &items[i * items.len() / chosen])
        .collect()
}

/// The image at a size that fits; small ones stay as they are.
fn fitting(image: &Image) -> Result<Image> {
    let (height, width) = (image.height(), image.width());
    let longest = height.max(width);
    if longest <= SIDE {
        return Ok(image.clone());
    }
    let shrink = |side: usize| (side * SIDE / longest).max(1);
    Ok(image.resize(shrink(height), shrink(width))?)
}

/// The class and the name of an image's file, or the name alone.
fn label(dataset: &dyn Dataset, index: usize) -> String {
    let name = dataset.name(index);
    let file = Path::new(&name).file_name().unwrap_or_default();
    let class = dataset
        .label(index)
        .and_then(|label| dataset.classes().get(label as usize));
    match class {
        Some(class) => format!("{class}/{}", file.to_string_lossy()),
        None => file.to_string_lossy().into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_spread_evenly() {
        let items: Vec<usize> = (0..10).collect();
        assert_eq!(evenly(&items, 4), [&0, &2, &5, &7]);
        assert_eq!(evenly(&items, 20).len(), 10);
        assert!(evenly(&items, 0).is_empty());
    }
}
