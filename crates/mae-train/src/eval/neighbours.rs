//! A picture of a few images, each with those that the encoder takes for most like it.

use std::sync::Arc;

use anyhow::Result;
use mae_data::Dataset;
use mae_model::VitClassifier;
use tch::{Device, Tensor};

use super::Evaluation;
use super::features::Features;
use super::knn::neighbours;
use crate::data::choose::pixels_at;
use crate::picture::display::Display;
use crate::picture::{LINE, Picture, TILE, letters, wrapped};

/// Images to judge by that are shown.
const QUERIES: i64 = 12;
/// Neighbours of each.
const NEIGHBOURS: i64 = 5;
/// Around a tile, pixels.
const FRAME: u32 = 5;
const GAP: u32 = 6;
/// Of a neighbour of the same class: light.
const RIGHT: [u8; 3] = [125, 211, 168];
/// Of one of another class: dark.
const WRONG: [u8; 3] = [140, 25, 50];

/// Draws images of `val`, evenly spaced, with their nearest neighbours among `train` and the cosine of each.
pub(super) fn draw(
    eval: &Evaluation,
    model: &VitClassifier,
    train: &Features,
    val: &Features,
) -> Result<Picture> {
    let queries = QUERIES.min(val.len());
    let rows: Vec<i64> = (0..queries).map(|i| i * val.len() / queries).collect();
    let rows = Tensor::from_slice(&rows);
    let chosen = val
        .values
        .index_select(0, &rows.to_device(val.values.device()));
    let (cosines, places) = neighbours(&train.values, &chosen, NEIGHBOURS.min(train.len()));
    let (cosines, places) = (
        cosines.to_device(Device::Cpu),
        places.to_device(Device::Cpu),
    );
    let shown = Shown {
        queries: images(eval, &eval.val, &val.indices.index_select(0, &rows))?,
        neighbours: images(
            eval,
            &eval.train,
            &train.indices.index_select(0, &places.flatten(0, -1)),
        )?,
        cosines: Vec::try_from(cosines.flatten(0, -1))?,
        display: Display::new(eval.val.kind(), model.normalization()),
        size: {
            let encoder = &model.config().encoder;
            [encoder.image_height as u32, encoder.image_width as u32]
        },
    };
    shown.draw()
}

/// An image as the model sees it.
struct Seen {
    /// In the units of mean and standard deviation.
    pixels: Vec<f32>,
    label: Option<u32>,
    class: String,
}

struct Shown {
    queries: Vec<Seen>,
    /// As many of each query, one after the other.
    neighbours: Vec<Seen>,
    cosines: Vec<f32>,
    display: Display,
    size: [u32; 2],
}

impl Shown {
    fn draw(&self) -> Result<Picture> {
        let [height, width] = self.size;
        let scale = (TILE / height.max(width)).max(1);
        let (tile_width, tile_height) = (width * scale, height * scale);
        let cell = [
            tile_width + 2 * FRAME + GAP,
            tile_height + 2 * FRAME + GAP + LINE,
        ];
        let each = self.neighbours.len() / self.queries.len();
        let picture_width = (1 + each as u32) * cell[0] + 2 * GAP;
        let mut notes = vec![format!(
            "left: images to judge by; right of each its {each} nearest neighbours by the cosine of features, light frame: \
             the same class, dark frame: another"
        )];
        notes.extend(self.display.note());
        let notes: Vec<String> = (notes.iter())
            .flat_map(|note| wrapped(note, letters(picture_width - 2 * GAP)))
            .collect();
        let top = LINE * notes.len() as u32 + GAP;
        let rows = self.queries.len() as u32;
        let mut picture = Picture::new(picture_width, top + rows * cell[1]);
        for (i, note) in notes.iter().enumerate() {
            picture.words(note, (GAP, LINE * i as u32 + 2));
        }
        let size = (height, width);
        for (row, query) in self.queries.iter().enumerate() {
            let y = top + row as u32 * cell[1] + FRAME;
            let words = |picture: &mut Picture, words: &str, x: u32| {
                let fitting: String = words.chars().take(letters(tile_width)).collect();
                picture.words(&fitting, (x, y + tile_height + FRAME + 1));
            };
            let x = GAP + FRAME;
            picture.tile(&self.display.show(&query.pixels), size, scale, (x, y));
            words(&mut picture, &query.class, x);
            let of_query = row * each..(row + 1) * each;
            let neighbours = self.neighbours[of_query.clone()]
                .iter()
                .zip(&self.cosines[of_query]);
            for (column, (neighbour, cosine)) in (1..).zip(neighbours) {
                let x = 2 * GAP + FRAME + column * cell[0];
                let colour = match neighbour.label == query.label {
                    true => RIGHT,
                    false => WRONG,
                };
                picture.frame((x, y), (tile_width, tile_height), FRAME, colour);
                picture.tile(&self.display.show(&neighbour.pixels), size, scale, (x, y));
                words(&mut picture, &format!("{cosine:.2} {}", neighbour.class), x);
            }
        }
        Ok(picture)
    }
}

/// The images of `dataset` at `indices`, `[images]`.
fn images(eval: &Evaluation, dataset: &Arc<dyn Dataset>, indices: &Tensor) -> Result<Vec<Seen>> {
    let indices: Vec<usize> = (Vec::<i64>::try_from(indices)?.into_iter())
        .map(|index| index as usize)
        .collect();
    let pixels = pixels_at(dataset, &indices, &eval.val_transform())?;
    (indices.iter().enumerate())
        .map(|(row, &index)| {
            let label = dataset.label(index);
            let class = label.and_then(|label| dataset.classes().get(label as usize));
            Ok(Seen {
                pixels: Vec::try_from(pixels.get(row as i64).flatten(0, -1))?,
                label,
                class: class.cloned().unwrap_or_default(),
            })
        })
        .collect()
}
