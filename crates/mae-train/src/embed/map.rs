//! Embeddings in two dimensions, to look at: where the encoder sees groups.

mod page;
mod scatter;

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bhtsne::{Neighbor, tSNE};
use mae_data::Dataset;
use mae_model::pca::Moments;
use mae_model::tensor_file::read_tensors;
use rayon::ThreadPoolBuilder;
use tch::{Kind, Tensor, no_grad};

use super::{Embedding, Summary};
use crate::error::Error;
use crate::eval::knn::neighbours;
use crate::rows::class_of;

/// Images of a map, evenly spaced where there are more.
pub const MOST: usize = 20_000;
/// About how many neighbours an image stays close to.
///
/// Source: van der Maaten and Hinton 2008, "Visualizing Data using t-SNE": 5 to 50.
const PERPLEXITY: f64 = 30.0;
/// Steps of its descent.
const STEPS: usize = 1000;

/// Images as points.
#[derive(Debug)]
pub struct Map {
    /// What it shows, in words.
    pub title: String,
    /// Each image's place, within a square from -1 to 1.
    pub places: Vec<[f32; 2]>,
    /// The index of each image in its data set.
    pub indices: Vec<usize>,
    /// The name of each image.
    pub names: Vec<String>,
    /// The number of each image's class in `classes`.
    pub labels: Vec<Option<usize>>,
    /// The names of the classes that occur.
    pub classes: Vec<String>,
}

/// The endings of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Html,
    Png,
}

/// Checks that a map of so many images can be written to `out`.
///
/// # Errors
/// If its ending says of no known form what it should be, or there are fewer than 10 images.
pub fn check(out: &Path, images: usize) -> Result<(), Error> {
    form_of(out)?;
    Ok(check_count(images)?)
}

fn check_count(images: usize) -> Result<()> {
    ensure!(
        images >= 10,
        "a map needs at least 10 images, found {images}"
    );
    Ok(())
}

fn form_of(out: &Path) -> Result<Form> {
    match out.extension().and_then(OsStr::to_str) {
        Some("html") => Ok(Form::Html),
        Some("png") => Ok(Form::Png),
        _ => bail!("{}: a map ends in .html or .png", out.display()),
    }
}

/// Draws the vectors that [`embed`](super::embed) wrote to `file`, of which it returned `summary`, as a map: a page by
/// itself that shows an image under the pointer, or a picture, by the ending of `out`.
///
/// # Errors
/// If there are fewer than 10 vectors, they are not one an image, or not finite, or a file cannot be read or written.
pub fn draw_map(
    embedding: &Embedding,
    dataset: &Arc<dyn Dataset>,
    file: &Path,
    summary: &Summary,
    out: &Path,
) -> Result<Map, Error> {
    Ok(draw(embedding, dataset, file, summary, out)?)
}

fn draw(
    embedding: &Embedding,
    dataset: &Arc<dyn Dataset>,
    file: &Path,
    summary: &Summary,
    out: &Path,
) -> Result<Map> {
    let form = form_of(out)?;
    let features = read(file)?;
    ensure!(
        features.dim() == 2,
        "a map needs one vector an image, found {:?}: embed without --tokens patches",
        features.size()
    );
    let (all, shown) = (summary.rows.len(), summary.rows.len().min(MOST));
    let rows: Vec<i64> = (0..shown).map(|i| (i * all / shown) as i64).collect();
    let features = features.index_select(0, &Tensor::from_slice(&rows));
    let places = places(&features, embedding)?;
    let of = match shown == all {
        true => format!("{all} images"),
        false => format!("{shown} of {all} images"),
    };
    let what = match embedding.tokens {
        super::Tokens::Class => "class token",
        super::Tokens::Mean | super::Tokens::Patches => "mean of the patch tokens",
    };
    let indices: Vec<usize> = rows.iter().map(|&row| summary.rows[row as usize]).collect();
    let title = format!("{of} by {}: {what}, t-SNE", embedding.weights().display());
    let map = Map::new(title, places, indices, dataset.as_ref());
    let bytes = match form {
        Form::Html => page::html(&map, embedding, dataset)?.into_bytes(),
        Form::Png => scatter::picture(&map).png()?,
    };
    mae_report::write_atomic(out, &bytes)?;
    Ok(map)
}

impl Map {
    fn new(
        title: String,
        places: Vec<[f32; 2]>,
        indices: Vec<usize>,
        dataset: &dyn Dataset,
    ) -> Self {
        let class = |&index: &usize| Some(class_of(dataset, index)).filter(|name| !name.is_empty());
        let mut classes: Vec<String> = indices.iter().filter_map(class).map(String::from).collect();
        classes.sort();
        classes.dedup();
        let label = |index| {
            classes
                .iter()
                .position(|known| Some(known.as_str()) == class(index))
        };
        Self {
            title,
            places,
            names: indices.iter().map(|&index| dataset.name(index)).collect(),
            labels: indices.iter().map(label).collect(),
            indices,
            classes,
        }
    }

    /// The colour of a class, or of an image without one.
    fn colour(&self, label: Option<usize>) -> [u8; 3] {
        const WITHOUT: [u8; 3] = [70, 110, 160];
        let count = self.classes.len();
        match label {
            None => WITHOUT,
            Some(label) if count <= colorous::CATEGORY10.len() => {
                colorous::CATEGORY10[label].into_array()
            }
            Some(label) => colorous::SINEBOW.eval_rational(label, count).into_array(),
        }
    }
}

/// The vectors in a file that was embedded.
fn read(file: &Path) -> Result<Tensor> {
    Ok(match file.extension().and_then(OsStr::to_str) {
        Some("npy") => Tensor::read_npy(file)?,
        _ => (read_tensors(file)?.0.remove("features"))
            .with_context(|| format!("{} has no `features`", file.display()))?,
    })
}

/// Two dimensions of `[images, dim]`, by t-SNE of the cosines between the vectors; the same every time.
///
/// Source: van der Maaten and Hinton 2008; begun by the principal components, and the forces interpolated as by
/// Linderman et al. 2019, arXiv 1712.09005.
fn places(features: &Tensor, embedding: &Embedding) -> Result<Vec<[f32; 2]>> {
    /// Images whose neighbours are looked for at once.
    const QUERIES: i64 = 512;
    let images = features.size()[0];
    check_count(images as usize)?;
    ensure!(
        features.isfinite().all().f_int64_value(&[])? != 0,
        "the vectors are not finite, so there is no map of them"
    );
    let perplexity = PERPLEXITY.min((images - 1) as f64 / 3.0);
    let count = ((3.0 * perplexity) as i64).min(images - 1);
    let mut near: Vec<Vec<Neighbor<f32>>> = Vec::with_capacity(images as usize);
    for first in (0..images).step_by(QUERIES as usize) {
        let queries = features.narrow(0, first, QUERIES.min(images - first));
        let (cosines, rows) = neighbours(features, &queries, count + 1);
        let cosines: Vec<Vec<f32>> = Vec::try_from(cosines)?;
        let rows: Vec<Vec<i64>> = Vec::try_from(rows)?;
        for (row, cosines) in rows.into_iter().zip(cosines) {
            let own = near.len() as i64;
            // Itself comes first, but where others are the same.
            let mut others: Vec<Neighbor<f32>> = (row.into_iter().zip(cosines))
                .filter(|&(row, _)| row != own)
                .map(|(row, cosine)| Neighbor {
                    index: row as usize,
                    distance: (2.0 - 2.0 * cosine).max(0.0).sqrt(),
                })
                .collect();
            others.truncate(count as usize);
            near.push(others);
        }
    }
    let start = start(features)?;
    let points: Vec<()> = vec![(); images as usize];
    let bar = embedding.progress.start(0, STEPS as u64);
    bar.message("a map of the vectors");
    // With several threads the sums would come out in another order each time.
    let alone = ThreadPoolBuilder::new().num_threads(1).build()?;
    let places = alone.install(|| {
        let mut tsne: tSNE<f32, ()> = tSNE::new(&points);
        tsne.perplexity(perplexity as f32)
            .epochs(STEPS)
            .initial_embedding(start)
            .fit_sne_with_neighbors(&near);
        tsne.embedding()
    });
    bar.advance_to(STEPS as u64);
    Ok(fitted(places.as_chunks().0))
}

/// Moved and scaled, both directions alike, to reach from -1 to 1.
fn fitted(places: &[[f32; 2]]) -> Vec<[f32; 2]> {
    let span = |axis: usize| {
        let values = places.iter().map(|place| place[axis]);
        let (low, high) = values.fold((f32::MAX, f32::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        ((low + high) / 2.0, (high - low) / 2.0)
    };
    let ((x, across), (y, up)) = (span(0), span(1));
    let reach = across.max(up).max(f32::MIN_POSITIVE);
    let fit = |place: &[f32; 2]| [(place[0] - x) / reach, (place[1] - y) / reach];
    places.iter().map(fit).collect()
}

/// Where the descent begins: the first two principal components, the first of deviation 1e-4.
fn start(features: &Tensor) -> Result<Vec<f32>> {
    no_grad(|| {
        let mut moments = Moments::new(features.size()[1] as usize);
        moments.add(features)?;
        let (pca, _) = moments.principal_components(2)?;
        let components = pca.project(features)?;
        let deviation = (components.select(1, 0).square().mean(Kind::Float))
            .sqrt()
            .clamp_min(f64::from(f32::MIN_POSITIVE));
        Ok(Vec::try_from(
            (components / deviation * 1e-4).flatten(0, -1),
        )?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::Tokens;
    use mae_data::SyntheticDataset;
    use mae_model::{MaeConfig, MaskedAutoencoderViT, Normalization};
    use tch::Device;

    fn embedding() -> (tempfile::TempDir, Embedding) {
        let config = MaeConfig {
            embed_dim: 16,
            depth: 1,
            num_heads: 2,
            patch_size: 8,
            decoder_embed_dim: 16,
            decoder_depth: 1,
            decoder_num_heads: 2,
            ..MaeConfig::tiny(16)
        };
        let mae = MaskedAutoencoderViT::new(&config, &Normalization::IMAGENET, Device::Cpu, 0);
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("model.safetensors");
        mae.unwrap().save(&weights).unwrap();
        (folder, Embedding::new(weights, Tokens::Mean).unwrap())
    }

    /// Vectors around three directions, each image's around that of its number.
    fn groups(images: i64) -> Tensor {
        let options = (Kind::Float, Device::Cpu);
        let numbers = (Tensor::arange(images * 16, options) * 12.9898)
            .sin()
            .view([images, 16]);
        let group = Tensor::arange(images, (Kind::Int64, Device::Cpu)).remainder(3);
        numbers * 0.2 + Tensor::eye(16, options).index_select(0, &group) * 3.0
    }

    #[test]
    fn groups_stay_together_and_a_second_time_is_the_same() {
        let (_folder, embedding) = embedding();
        let features = groups(120);
        let found = places(&features, &embedding).unwrap();
        assert_eq!(found, places(&features, &embedding).unwrap());
        let distance = |a: [f32; 2], b: [f32; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
        for (i, &place) in found.iter().enumerate() {
            let others = (0..found.len()).filter(|&j| j != i);
            let nearest = others
                .min_by(|&a, &b| distance(place, found[a]).total_cmp(&distance(place, found[b])));
            assert_eq!(nearest.unwrap() % 3, i % 3, "image {i}");
        }
        let reach = found
            .iter()
            .flatten()
            .fold(0.0, |most: f32, value| most.max(value.abs()));
        assert!((reach - 1.0).abs() < 1e-5, "{reach}");
    }

    #[test]
    fn odd_vectors_are_placed_or_refused() {
        let (_folder, embedding) = embedding();
        let same = Tensor::ones([12, 16], (Kind::Float, Device::Cpu));
        let found = places(&same, &embedding).unwrap();
        assert!(
            found.iter().flatten().all(|value| value.is_finite()),
            "{found:?}"
        );
        let message = |features: &Tensor| places(features, &embedding).unwrap_err().to_string();
        assert!(message(&groups(9)).contains("at least 10 images, found 9"));
        assert!(message(&(groups(12) * f64::NAN)).contains("not finite"));
    }

    #[test]
    fn a_page_has_everything_inside_and_no_name_ends_its_script() {
        let (_folder, embedding) = embedding();
        let scenes = SyntheticDataset::new(3, 16, 16, 3, 0).unwrap();
        let places = vec![[0.0, 0.5], [-1.0, 1.0], [1.0, -1.0]];
        let mut map = Map::new("a title".into(), places, vec![0, 1, 2], &scenes);
        assert!((1..=3).contains(&map.classes.len()));
        assert!(map.labels.iter().all(Option::is_some));
        map.names[0] = "</script><b>".into();
        let dataset: Arc<dyn Dataset> = Arc::new(scenes);
        let page = page::html(&map, &embedding, &dataset).unwrap();
        assert_eq!(page.matches("</script>").count(), 2);
        assert_eq!(page.matches("data:image/jpeg;base64,").count(), 3);
        assert!(!page.contains("http") && page.contains("each with its picture"));
        let picture = scatter::picture(&map);
        assert_eq!(
            (picture.width(), picture.height()),
            (900 + 32 + 180, 900 + 32 + 17)
        );
    }
}
