//! A map as a page by itself.

use std::io::Cursor;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayImage, RgbImage};
use mae_data::Dataset;
use serde::Serialize;

use super::{Embedding, Map};
use crate::data::choose::pixels_at;
use crate::picture::display::Display;

/// Images whose pictures are in the page, evenly spaced where there are more.
const PICTURES: usize = 2000;
/// The longest side of a picture, pixels; small images stay as they are.
const SIDE: u32 = 96;
/// Of 100.
const QUALITY: u8 = 85;
/// Images that are loaded at once.
const BATCH: usize = 256;

/// What the script of the page draws.
#[derive(Serialize)]
struct Data<'a> {
    title: &'a str,
    note: String,
    places: &'a [[f32; 2]],
    names: &'a [String],
    labels: &'a [Option<usize>],
    classes: &'a [String],
    colours: Vec<String>,
    without: String,
    /// Data URLs by the number of the point.
    pictures: Vec<(usize, String)>,
}

/// Points that show their image and its name under the pointer.
pub(super) fn html(map: &Map, embedding: &Embedding, dataset: &Arc<dyn Dataset>) -> Result<String> {
    const TEMPLATE: &str = include_str!("page.html");
    const PLACE: &str = "{{data}}";
    let hex = |[red, green, blue]: [u8; 3]| format!("#{red:02x}{green:02x}{blue:02x}");
    let pictures = pictures(map, embedding, dataset)?;
    let data = Data {
        title: &map.title,
        note: match pictures.len() == map.places.len() {
            true => "each with its picture".into(),
            false => format!("pictures of {} of them, evenly spaced", pictures.len()),
        },
        places: &map.places,
        names: &map.names,
        labels: &map.labels,
        classes: &map.classes,
        colours: (0..map.classes.len())
            .map(|label| hex(map.colour(Some(label))))
            .collect(),
        without: hex(map.colour(None)),
        pictures,
    };
    // A name must not end the script that the data are in.
    let json = serde_json::to_string(&data)?.replace('<', "\\u003c");
    Ok(TEMPLATE.replacen(PLACE, &json, 1))
}

/// Small JPEGs of images as the encoder sees them.
fn pictures(
    map: &Map,
    embedding: &Embedding,
    dataset: &Arc<dyn Dataset>,
) -> Result<Vec<(usize, String)>> {
    let (all, shown) = (map.indices.len(), map.indices.len().min(PICTURES));
    let points: Vec<usize> = (0..shown).map(|i| i * all / shown).collect();
    let display = Display::new(dataset.kind(), embedding.model().normalization());
    let transform = embedding.extraction().transform;
    let size = (transform.width as u32, transform.height as u32);
    let mut pictures = Vec::with_capacity(shown);
    for points in points.chunks(BATCH) {
        let indices: Vec<usize> = points.iter().map(|&point| map.indices[point]).collect();
        let pixels = pixels_at(dataset, &indices, &transform)?;
        for (row, &point) in points.iter().enumerate() {
            let pixels = Vec::<f32>::try_from(pixels.get(row as i64).flatten(0, -1))?;
            let url = data_url(display.show(&pixels), size, display.channels())?;
            pictures.push((point, url));
        }
    }
    Ok(pictures)
}

fn data_url(pixels: Vec<u8>, (width, height): (u32, u32), channels: usize) -> Result<String> {
    let image = match channels {
        1 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
    };
    let image = image.context("the picture is height x width x channels long")?;
    let image = match width.max(height) > SIDE {
        true => image.thumbnail(SIDE, SIDE),
        false => image,
    };
    let mut jpeg = Cursor::new(Vec::new());
    image.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY))?;
    let jpeg = STANDARD.encode(jpeg.into_inner());
    Ok(format!("data:image/jpeg;base64,{jpeg}"))
}
