//! Which part of an image becomes the sample; sides are heights and widths in pixels.

use crate::image::CropBox;
use crate::rng::Rng;

/// The box whose resize equals resizing the image until it just covers the target divided by
/// `crop_share` and then cutting the target out, with torchvision's rounding.
///
/// `place` chooses the distance from top and left, from 0 to its argument, in resized pixels.
pub(super) fn covering(
    target: [usize; 2],
    source: [usize; 2],
    crop_share: f64,
    mut place: impl FnMut(usize) -> f64,
) -> CropBox {
    let [height, width] = source;
    let covered = target.map(|side| (side as f64 / crop_share) as usize);
    // In u128 because two image sides and a target side may be multiplied.
    let scaled = |target: usize, side: usize, other: usize| {
        (target as u128 * other as u128 / side as u128) as usize
    };
    let tall = covered[0] as u128 * width as u128 >= covered[1] as u128 * height as u128;
    let resized = if tall {
        [covered[0], scaled(covered[0], height, width)]
    } else {
        [scaled(covered[1], width, height), covered[1]]
    };
    let [(top, height), (left, width)] = [0, 1].map(|axis| {
        let scale = source[axis] as f64 / resized[axis] as f64;
        let start = place(resized[axis] - target[axis]) * scale;
        let len = (target[axis] as f64 * scale).min(source[axis] as f64 - start);
        (start, len)
    });
    CropBox {
        top,
        left,
        height,
        width,
    }
}

/// Half of the room, as torchvision rounds it.
pub(super) fn centred(room: usize) -> f64 {
    (room as f64 / 2.0).round_ties_even()
}

/// torchvision's `RandomResizedCrop.get_params`: ten tries, then the largest centred crop whose
/// ratio is in bounds.
pub(super) fn random_resized(
    source: [usize; 2],
    scale: [f64; 2],
    ratio: [f64; 2],
    rng: &mut Rng,
) -> CropBox {
    const TRIES: usize = 10;
    let [full_height, full_width] = source.map(|side| side as f64);
    for _ in 0..TRIES {
        let area = full_height * full_width * rng.between(scale[0], scale[1]);
        let aspect = rng.between(ratio[0].ln(), ratio[1].ln()).exp();
        let crop_height = (area / aspect).sqrt().round();
        let crop_width = (area * aspect).sqrt().round();
        if (1.0..=full_height).contains(&crop_height) && (1.0..=full_width).contains(&crop_width) {
            return CropBox {
                top: rng.below((full_height - crop_height) as u64 + 1) as f64,
                left: rng.below((full_width - crop_width) as u64 + 1) as f64,
                height: crop_height,
                width: crop_width,
            };
        }
    }
    // A ratio far from 1 can round the other side of a tiny image to 0.
    let crop_height = (full_width / ratio[0]).round().clamp(1.0, full_height);
    let crop_width = (full_height * ratio[1]).round().clamp(1.0, full_width);
    CropBox {
        top: ((full_height - crop_height) / 2.0).floor(),
        left: ((full_width - crop_width) / 2.0).floor(),
        height: crop_height,
        width: crop_width,
    }
}
