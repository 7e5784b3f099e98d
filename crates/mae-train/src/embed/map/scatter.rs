//! A map as a picture.

use super::Map;
use crate::picture::{LINE, Picture, letters, wrapped};

/// Side of the square that has the points, pixels.
const SIDE: u32 = 900;
const MARGIN: u32 = 16;
/// Room for the names of the classes, pixels.
const NAMES: u32 = 180;
/// Names that fit below each other.
const SHOWN: usize = 48;

/// Draws the points, later ones over earlier ones, and what the colours mean.
pub(super) fn picture(map: &Map) -> Picture {
    let has_names = !map.classes.is_empty();
    let width = SIDE + 2 * MARGIN + if has_names { NAMES } else { 0 };
    let title = wrapped(&map.title, letters(width - 2 * MARGIN));
    let top = LINE * title.len() as u32 + MARGIN;
    let mut picture = Picture::new(width, top + SIDE + MARGIN);
    for (i, line) in title.iter().enumerate() {
        picture.words(line, (MARGIN, LINE * i as u32 + 4));
    }
    let radius = if map.places.len() > 3000 { 2 } else { 3 };
    let at = |place: f32| ((place + 1.0) / 2.0 * (SIDE - 1) as f32).round() as u32;
    for (&[x, y], &label) in map.places.iter().zip(&map.labels) {
        // Upwards.
        let place = (MARGIN + at(x), top + at(-y));
        picture.dot(place, radius, map.colour(label));
    }
    let left = SIDE + 2 * MARGIN;
    for (i, name) in map.classes.iter().take(SHOWN).enumerate() {
        let y = top + LINE * i as u32;
        picture.dot((left + 5, y + 7), 5, map.colour(Some(i)));
        let name: String = name.chars().take(letters(NAMES - 24)).collect();
        picture.words(&name, (left + 16, y));
    }
    if map.classes.len() > SHOWN {
        let more = format!("and {} more", map.classes.len() - SHOWN);
        picture.words(&more, (left + 16, top + LINE * SHOWN as u32));
    }
    picture
}
