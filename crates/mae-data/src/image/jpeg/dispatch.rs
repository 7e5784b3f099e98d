//! The same code for several processors, chosen while running.

use super::usual::Usual;
use super::{Decoder, View};

/// [`Decoder::decode`], compiled for the vector instructions that this processor has.
///
/// All arithmetic is in integers, so every processor gives the same result.
pub(super) fn decode(
    decoder: &mut Decoder,
    usual: &Usual,
    view: &View,
    channels: usize,
) -> Option<Vec<u8>> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
    {
        // SAFETY: the processor has all that the function was compiled for.
        #[expect(unsafe_code, reason = "the processor was asked for the instructions")]
        return unsafe { decode_avx2(decoder, usual, view, channels) };
    }
    decoder.decode(usual, view, channels)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
fn decode_avx2(
    decoder: &mut Decoder,
    usual: &Usual,
    view: &View,
    channels: usize,
) -> Option<Vec<u8>> {
    decoder.decode(usual, view, channels)
}
