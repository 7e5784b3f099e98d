//! Pictures of what an encoder looks at, and of what it takes for alike.

use std::sync::Arc;

use anyhow::Result;
use colorous::INFERNO;
use mae_data::{Dataset, PixelKind};
use mae_model::classifier::Pooling;
use mae_model::pca::Moments;
use mae_model::{MaeConfig, VitClassifier, in_units, patchify};
use tch::{Device, Kind, Tensor};

use crate::data::choose::{Chosen, choose};
use crate::error::Error;
use crate::picture::display::Display;
use crate::picture::{Comparison, Picture, Versions};

/// Components that are shown: red, green and blue.
const COMPONENTS: usize = 3;
/// How many deviations of a component are black, or its full colour.
const REACH: f64 = 2.0;
/// Images that the encoder is given at once.
const BATCH: i64 = 16;

/// What an encoder makes of some images: see [`attend`].
#[derive(Debug)]
pub struct Attended {
    /// Index of each image in its data set.
    pub indices: Vec<usize>,
    /// How much the class token heeds each token in the last block, its own first: `[images, heads, 1 + patches]`, f32.
    pub attention: Tensor,
    /// Of the patch tokens of all images.
    pub components: Components,
    /// Of the same less the mean of their place over all images, which shows what depends on the image alone; `None` of
    /// one image.
    pub without_place: Option<Components>,
    /// `[images, height, width, channels]`, u8, or f32 in the files' own units.
    pixels: Tensor,
    display: Display,
    encoder: MaeConfig,
    tokens: &'static str,
}

/// The first three principal components of tokens.
///
/// A component's largest entry is positive, since nothing else determines its sign.
#[derive(Debug)]
pub struct Components {
    /// `[images, patches, 3]`, f32, whose mean is zero.
    pub values: Tensor,
    /// The share of the tokens' variance in each of them.
    pub explained: Vec<f64>,
}

impl Components {
    /// Of `[images, patches, embed_dim]`.
    fn of(tokens: &Tensor) -> Result<Self> {
        let mut moments = Moments::new(tokens.size()[2] as usize);
        moments.add(tokens)?;
        let (pca, explained) = moments.principal_components(COMPONENTS)?;
        Ok(Self {
            values: pca.project(tokens)?,
            explained,
        })
    }

    fn shares(&self) -> String {
        let [red, green, blue] = [0, 1, 2].map(|at| 100.0 * self.explained[at]);
        format!("{red:.0}, {green:.0} and {blue:.0} % of their variance")
    }
}

/// Looks into `model`, an encoder or a classifier, at up to `images` images of `dataset`; which ones depends on `seed`.
///
/// The components are of the patch tokens after the last norm, and of all images together, so that one colour means the
/// same in each; where the model pools before its norm, of those before it.
///
/// # Errors
/// If no image can be read.
///
/// Source: Caron et al. 2021, arXiv 2104.14294, figure 1 (attention); Oquab et al. 2023, arXiv 2304.07193, figure 1
/// (components).
pub fn attend(
    model: &VitClassifier,
    dataset: &Arc<dyn Dataset>,
    images: usize,
    seed: u64,
) -> Result<Attended, Error> {
    Ok(look(model, dataset, images, seed)?)
}

fn look(
    model: &VitClassifier,
    dataset: &Arc<dyn Dataset>,
    images: usize,
    seed: u64,
) -> Result<Attended> {
    let encoder = model.config().encoder.clone();
    let size = [encoder.image_height, encoder.image_width];
    let Chosen { pixels, indices } = choose(dataset, images, seed, size, model.device())?;
    let is_before_norm = model.config().pooling == Pooling::MeanThenNorm;
    let (mut attention, mut tokens) = (Vec::new(), Vec::new());
    for batch in pixels.f_split(BATCH, 0)? {
        let patches = patchify(&batch, encoder.patch_size)?;
        attention.push(model.class_attention(&patches)?);
        let all = match is_before_norm {
            true => model.tokens_after(&patches, encoder.depth)?,
            false => model.tokens(&patches)?,
        };
        tokens.push(all.narrow(1, 1, all.size()[1] - 1));
    }
    let tokens = Tensor::cat(&tokens, 0).to_device(Device::Cpu);
    let without_place = match indices.len() {
        1 => None,
        _ => Some(Components::of(
            &(&tokens - tokens.mean_dim(0i64, true, None)),
        )?),
    };
    let kind = match pixels.kind() {
        Kind::Uint8 => PixelKind::U8,
        _ => PixelKind::F32,
    };
    Ok(Attended {
        indices,
        attention: Tensor::cat(&attention, 0).to_device(Device::Cpu),
        components: Components::of(&tokens)?,
        without_place,
        pixels: pixels.to_device(Device::Cpu),
        display: Display::new(kind, model.normalization()),
        encoder,
        tokens: match is_before_norm {
            true => "after the last block",
            false => "after the last norm",
        },
    })
}

/// Which attention is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    /// The mean of all heads.
    Mean,
    /// The mean, and each head.
    Each,
}

impl Attended {
    /// Draws `original | attention | components | less place` for each image, with its name of `names` below, and the
    /// attention of each head at the end, if that is asked for.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn picture(&self, heads: Heads, names: &[String]) -> Result<Picture, Error> {
        Ok(self.draw(heads, names)?)
    }

    fn draw(&self, heads: Heads, names: &[String]) -> Result<Picture> {
        let count = match heads {
            Heads::Mean => 0,
            Heads::Each => self.attention.size()[1],
        };
        let of_heads: Vec<String> = (1..=count).map(|head| format!("head {head}")).collect();
        let mut titles = vec!["original", "attention", "components"];
        titles.extend(self.without_place.as_ref().map(|_| "less place"));
        titles.extend(of_heads.iter().map(String::as_str));

        let patches = self.components.values.size()[1];
        let of_patches = self.attention.narrow(2, 1, patches);
        let mean = of_patches.mean_dim(1i64, false, None);
        let images = (0..self.indices.len())
            .map(|i| {
                let at = i as i64;
                let original = in_units(&self.pixels.get(at)).flatten(0, -1);
                let mut tiles = vec![
                    self.display.show(&Vec::<f32>::try_from(original)?),
                    self.heat(&mean.get(at))?,
                    self.colours(&self.components, at)?,
                ];
                if let Some(components) = &self.without_place {
                    tiles.push(self.colours(components, at)?);
                }
                for head in 0..count {
                    tiles.push(self.heat(&of_patches.get(at).get(head))?);
                }
                let name = names.get(i).cloned();
                Ok(Versions { tiles, name })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Comparison {
            notes: &self.notes(),
            groups: &[],
            titles: &titles,
            columns: if count > 0 { 1 } else { 2 },
            height: self.encoder.image_height as u32,
            width: self.encoder.image_width as u32,
        }
        .draw(&images))
    }

    /// What the picture shows, in words.
    pub fn notes(&self) -> Vec<String> {
        let MaeConfig {
            depth, num_heads, ..
        } = self.encoder;
        let mut notes = vec![
            format!(
                "attention: of the class token to each patch in block {depth} of {depth}, the mean of {num_heads} heads; \
                 bright is much, and each tile has its own scale"
            ),
            format!(
                "components: red, green and blue are the first three principal components of the patch tokens {} of all \
                 {} images, {}; {REACH} deviations from the mean are black and full",
                self.tokens,
                self.indices.len(),
                self.components.shares()
            ),
        ];
        if let Some(components) = &self.without_place {
            notes.push(format!(
                "less place: the same of these tokens less the mean of their place over all images, {}",
                components.shares()
            ));
        }
        notes.extend(self.display.note());
        notes
    }

    /// `[patches]` in the colours of heat, from none to the most of any.
    fn heat(&self, shares: &Tensor) -> Result<Vec<u8>> {
        let shares = Vec::<f32>::try_from(shares)?;
        let most = shares.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let colours: Vec<[u8; 3]> = (shares.iter())
            .map(|share| INFERNO.eval_continuous((share / most).into()).into_array())
            .collect();
        Ok(self.tile(&colours))
    }

    /// Those of an image as red, green and blue.
    fn colours(&self, components: &Components, image: i64) -> Result<Vec<u8>> {
        let Components { values, .. } = components;
        let deviation = values.square().mean_dim([0i64, 1].as_slice(), false, None);
        let deviation = deviation.sqrt().clamp_min(f64::from(f32::MIN_POSITIVE));
        let levels = (values.get(image) / deviation / (2.0 * REACH) + 0.5) * 255.0;
        let levels = levels.round().clamp(0.0, 255.0).to_kind(Kind::Uint8);
        let levels = Vec::<u8>::try_from(levels.flatten(0, -1))?;
        let colours: Vec<[u8; 3]> = levels.as_chunks().0.to_vec();
        Ok(self.tile(&colours))
    }

    /// A colour for each patch as an image, `[height, width, 3]`.
    fn tile(&self, colours: &[[u8; 3]]) -> Vec<u8> {
        let MaeConfig {
            image_height,
            image_width,
            patch_size,
            ..
        } = self.encoder;
        let columns = image_width / patch_size;
        (0..image_height)
            .flat_map(|y| (0..image_width).map(move |x| y / patch_size * columns + x / patch_size))
            .flat_map(|patch| colours[patch])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mae_data::SyntheticDataset;
    use mae_model::Normalization;
    use mae_model::classifier::ClassifierConfig;

    fn model(pooling: Pooling) -> VitClassifier {
        let encoder = MaeConfig {
            image_width: 24,
            embed_dim: 32,
            depth: 2,
            num_heads: 4,
            patch_size: 4,
            ..MaeConfig::tiny(16)
        };
        let config = ClassifierConfig {
            pooling,
            ..ClassifierConfig::linear_probe(encoder, 3)
        };
        VitClassifier::new(&config, &Normalization::IMAGENET, Device::Cpu, 1).unwrap()
    }

    /// More images than go through the encoder at once.
    fn images() -> Arc<dyn Dataset> {
        Arc::new(SyntheticDataset::new(20, 16, 24, 3, 0).unwrap())
    }

    #[test]
    fn every_image_has_attention_and_components_of_its_own() {
        let found = attend(&model(Pooling::ClassToken), &images(), 20, 0).unwrap();
        assert_eq!(found.indices, (0..20).collect::<Vec<_>>());
        assert_eq!(found.attention.size(), [20, 4, 25]);
        let sums = found.attention.sum_dim_intlist(-1, false, Kind::Float);
        assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-5);
        let Components { values, explained } = &found.components;
        assert_eq!(values.size(), [20, 24, 3]);
        assert!(explained.is_sorted_by(|a, b| a >= b) && explained[2] > 0.0);
        // What every image has at a place is gone.
        let rest = &found.without_place.as_ref().unwrap().values;
        assert!(
            rest.mean_dim(0i64, false, None)
                .abs()
                .max()
                .double_value(&[])
                < 1e-5
        );
        assert!(rest.abs().max().double_value(&[]) > 1e-3);

        // The same image is the same among others, up to rounding.
        let model = model(Pooling::ClassToken);
        let last = choose(&images(), 20, 0, [16, 24], Device::Cpu)
            .unwrap()
            .pixels
            .get(19);
        let patches = patchify(&last.unsqueeze(0), 4).unwrap();
        let alone = model.class_attention(&patches).unwrap().get(0);
        assert!(found.attention.get(19).allclose(&alone, 1e-5, 1e-6, false));
    }

    #[test]
    fn the_picture_has_a_row_an_image_and_a_tile_a_head() {
        let found = attend(&model(Pooling::MeanThenNorm), &images(), 3, 0).unwrap();
        assert!(found.notes()[1].contains("after the last block of all 3 images"));
        let names: Vec<String> = (0..3).map(|i| format!("image {i}")).collect();
        let mean = found.picture(Heads::Mean, &names).unwrap();
        let each = found.picture(Heads::Each, &names).unwrap();
        // Images of 24 x 16 are shown five times as large, with gaps of 4; the mean has two images a row.
        assert_eq!(mean.width(), 2 * (4 * 124 + 8));
        assert_eq!(each.width(), 8 * 124 + 8);
        let one = attend(&model(Pooling::ClassToken), &images(), 1, 0).unwrap();
        assert_eq!(
            one.picture(Heads::Mean, &names).unwrap().width(),
            3 * 124 + 8
        );
    }

    #[test]
    fn tiles_show_the_most_and_the_least_of_patches() {
        let mut found = attend(&model(Pooling::ClassToken), &images(), 2, 0).unwrap();
        let shares: Vec<f32> = (0..24).map(|patch| patch as f32).collect();
        let tile = found.heat(&Tensor::from_slice(&shares)).unwrap();
        let at = |tile: &[u8], x: usize, y: usize| tile[(y * 24 + x) * 3..][..3].to_vec();
        assert_eq!(at(&tile, 3, 3), INFERNO.eval_continuous(0.0).into_array());
        assert_eq!(at(&tile, 23, 15), INFERNO.eval_continuous(1.0).into_array());
        let seventh = INFERNO.eval_continuous(7.0 / 23.0).into_array();
        assert_eq!(at(&tile, 4, 4), seventh);

        // One component alone differs: from -1 to 1, whose deviation is 0.7.
        let ramp = Tensor::linspace(-1.0, 1.0, 48, (Kind::Float, Device::Cpu)).view([2, 24, 1]);
        found.components.values = Tensor::cat(&[&ramp, &ramp.zeros_like(), &ramp.zeros_like()], 2);
        let tile = found.colours(&found.components, 0).unwrap();
        assert_eq!(at(&tile, 0, 0)[1..], [128, 128]);
        let (first, last) = (at(&tile, 0, 0)[0], at(&tile, 23, 15)[0]);
        assert!(first < 25 && (118..128).contains(&last), "{first} {last}");
    }
}
