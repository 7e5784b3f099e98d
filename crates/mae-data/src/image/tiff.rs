//! TIFF files of any number of channels and pages.
//!
//! The library decodes the parts of a file; what their values mean, and which pages make an image, is decided here.
//!
//! | file | what |
//! |---|---|
//! | `plain.rs` | the file as the library is to see it |
//! | `page.rs` | the values of a page |
//! | `colour.rs` | from values to colours |

mod colour;
mod page;
mod plain;

use std::io::{Read, Seek};

use tiff::TiffError;
use tiff::decoder::{Decoder, Limits};
use tiff::tags::Tag;

use self::colour::Colour;
use self::page::{Page, Part};
use self::plain::Plain;
use super::number::{Dtype, Number, Strides};
use super::{Choose, Decoded, MAX_CHANNELS, MAX_DECODED, MAX_SIDE, Meaning, Nodata};
use crate::pixels::{PixelKind, Pixels};

/// Whether a file begins as TIFF files do.
pub(super) fn is_tiff(content: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];
    MAGIC.iter().any(|magic| content.starts_with(magic))
}

/// What the values of a TIFF file become.
pub(super) fn kind_of(reader: impl Read + Seek, nodata: Nodata) -> Option<PixelKind> {
    let mut decoder = Decoder::new(reader).ok()?;
    let bits = decoder
        .find_tag_unsigned_vec::<u16>(Tag::BitsPerSample)
        .ok()?
        .unwrap_or_default();
    let formats = decoder
        .find_tag_unsigned_vec::<u16>(Tag::SampleFormat)
        .ok()?
        .unwrap_or_default();
    // Format 1, the default, is for unsigned integers.
    let are_bytes = bits.iter().all(|&bits| bits <= 8) && formats.iter().all(|&format| format == 1);
    let tag = page::nodata_tag(&mut decoder).ok()?;
    Some(match are_bytes {
        true => Number::BYTE.kind(nodata.missing(tag.as_deref()).ok()?),
        false => PixelKind::F32,
    })
}

/// How many bands a file has; `None` of pictures and of what cannot be read.
pub(super) fn bands(content: &[u8]) -> Option<usize> {
    let mut file = File::open(content).ok()?;
    let pages = file.pages()?;
    if pages > 1 && file.page.samples == 1 {
        return Some(pages);
    }
    let (own, meaning) = file.colour().ok()?.channels(file.page.samples);
    (meaning == Meaning::Bands).then_some(own)
}

/// Decodes a file: its first page, or all pages of one kind where these have the channels that are asked for and the
/// first has not.
pub(super) fn read(
    content: &[u8],
    channels: usize,
    nodata: Nodata,
    choose: &mut Choose,
) -> Result<Decoded, String> {
    let mut file = File::open(content)?;
    let colour = file.colour()?;
    let samples = file.page.samples;
    let (own, meaning) = colour.channels(samples);
    let more_pages = file.others();
    let pages = file.pages().unwrap_or(1);
    let can_be_bands = matches!(colour, Colour::AsStored(_) | Colour::Inverted);
    if pages > 1 && own != channels && pages * samples == channels && can_be_bands {
        return file.decode_bands(&colour, pages, nodata, choose);
    }
    if own != channels && (meaning == Meaning::Bands || !matches!(channels, 1 | 3)) {
        // Said before anything large is decoded.
        let mut reason = super::other_channels(own, channels);
        if pages > 1 {
            reason.push_str(&format!(" (its {pages} pages have {})", pages * samples));
        }
        return Err(reason);
    }
    let mut decoded = file.decode_page(&colour, nodata, choose)?;
    decoded.left_pages = more_pages;
    Ok(decoded)
}

/// An open file, at its first page.
struct File<'a> {
    content: &'a [u8],
    decoder: Decoder<Plain<'a>>,
    /// What the values of each page mean, in TIFF's numbers.
    meanings: Vec<Option<u16>>,
    page: Page,
}

impl<'a> File<'a> {
    fn open(content: &'a [u8]) -> Result<File<'a>, String> {
        let mut limits = Limits::default();
        limits.decoding_buffer_size = MAX_DECODED as usize;
        limits.intermediate_buffer_size = MAX_DECODED as usize;
        limits.ifd_value_size = 64 << 20;
        let plain = Plain::new(content);
        let meanings = plain.meanings();
        let mut decoder = Decoder::new(plain)
            .map(|decoder| decoder.with_limits(limits))
            .map_err(with_remedy)?;
        let page = Page::of(&mut decoder, meanings.first().copied().flatten())?;
        Ok(File {
            content,
            decoder,
            meanings,
            page,
        })
    }

    /// What the values of the page that the decoder is at become.
    fn colour(&mut self) -> Result<Colour, String> {
        let mut numbers = |tag| {
            let values = self.decoder.find_tag_unsigned_vec::<u16>(tag);
            values.map_err(with_remedy)
        };
        let map = numbers(Tag::ColorMap)?;
        let subsampling = numbers(Tag::ChromaSubsampling)?.unwrap_or_else(|| vec![2, 2]);
        Colour::of(&self.page, map, &subsampling)
    }

    /// How many pages there are beside the first that are no smaller copies, nor masks, of others.
    fn others(&mut self) -> usize {
        let others = (1..self.meanings.len())
            .filter(|&index| {
                self.decoder.seek_to_image(index).is_err()
                    || !page::is_auxiliary(&mut self.decoder, self.meanings[index])
            })
            .count();
        let _ = self.decoder.seek_to_image(0);
        others.max(self.in_one_directory().unwrap_or(1) - 1)
    }

    /// How many pages there are, the first included, if all are of its kind.
    fn pages(&mut self) -> Option<usize> {
        if let Some(pages) = self.in_one_directory() {
            return Some(pages);
        }
        let pages = self.indices();
        let are_alike = pages.iter().all(|&index| {
            (self.decoder.seek_to_image(index).is_ok())
                && Page::of(&mut self.decoder, self.meanings[index])
                    .is_ok_and(|page| page.is_like(&self.page))
        });
        self.decoder.seek_to_image(0).ok()?;
        are_alike.then_some(pages.len())
    }

    /// The directories of the pages that are no smaller copies, nor masks, of others.
    fn indices(&mut self) -> Vec<usize> {
        let mut indices = vec![0];
        for index in 1..self.meanings.len() {
            if self.decoder.seek_to_image(index).is_ok()
                && !page::is_auxiliary(&mut self.decoder, self.meanings[index])
            {
                indices.push(index);
            }
        }
        indices
    }

    /// The number of pages where ImageJ has written several one after the other, and a directory for the first.
    ///
    /// Source: <https://imagej.net/ij/docs/guide/146-28.html>, "TIFF"; `images=` in the description.
    fn in_one_directory(&mut self) -> Option<usize> {
        if self.meanings.len() != 1 || self.page.compression != 1 || self.page.bits < 8 {
            return None;
        }
        let description = self
            .decoder
            .get_tag_ascii_string(Tag::ImageDescription)
            .ok()?;
        let description = description.strip_prefix("ImageJ=")?;
        let images = description
            .lines()
            .find_map(|line| line.strip_prefix("images="))?;
        let images: usize = images.trim().parse().ok()?;
        let end = (self.first_value()?).checked_add(images.checked_mul(self.page_bytes()?)?)?;
        (images > 1 && end <= self.content.len()).then_some(images)
    }

    /// Where the values of a file without tiles begin.
    fn first_value(&mut self) -> Option<usize> {
        let offsets = self
            .decoder
            .find_tag_unsigned_vec::<usize>(Tag::StripOffsets);
        offsets.ok()??.first().copied()
    }

    fn page_bytes(&self) -> Option<usize> {
        let Page {
            height,
            width,
            samples,
            ..
        } = self.page;
        let values = height.checked_mul(width)?.checked_mul(samples)?;
        values.checked_mul(self.page.number().ok()?.size())
    }

    /// Refuses what would take too much memory.
    fn check_size(&self, channels: usize, [rows, columns]: &Part) -> Result<(), String> {
        let Page { height, width, .. } = self.page;
        if height.max(width) > MAX_SIDE as usize {
            return Err(format!(
                "it has {height} x {width} pixels, expected at most {MAX_SIDE} on a side; cut it into tiles"
            ));
        }
        if channels > MAX_CHANNELS {
            return Err(format!(
                "it has {channels} channels, expected at most {MAX_CHANNELS}; split it"
            ));
        }
        let (height, width) = (rows.len(), columns.len());
        let bytes = (height * width * channels * self.page.number()?.size()) as u64;
        match bytes > MAX_DECODED {
            false => Ok(()),
            true => Err(super::too_large(height, width, channels, bytes)),
        }
    }

    /// The rows and columns that are decoded, and how the image lies.
    fn part(&mut self, choose: &mut Choose) -> Result<(Part, u16), String> {
        let orientation = self.decoder.find_tag_unsigned::<u16>(Tag::Orientation);
        let orientation = orientation.map_err(with_remedy)?.unwrap_or(1);
        let Page { height, width, .. } = self.page;
        Ok(match orientation {
            2..=8 => ([0..height, 0..width], orientation),
            _ => (choose(height, width), 1),
        })
    }

    fn decode_page(
        mut self,
        colour: &Colour,
        nodata: Nodata,
        choose: &mut Choose,
    ) -> Result<Decoded, String> {
        let samples = self.page.samples;
        self.page.check_compression()?;
        let (part, orientation) = self.part(choose)?;
        self.check_size(samples, &part)?;
        page::check_plain(&mut self.decoder, samples)?;
        let tag = page::nodata_tag(&mut self.decoder)?;
        let missing = nodata.missing(tag.as_deref())?;
        let number = self.page.number()?;
        let len = part[0].len() * part[1].len();
        // Who says what is missing among YCbCr speaks of RGB, which is all that programs show.
        let (of_stored, of_colours) = match colour {
            Colour::YCbCr => (None, missing),
            _ => (missing, None),
        };
        let mut pixels = Pixels::zeros(number.kind(of_stored), len * samples);
        (self.page).copy(
            &mut self.decoder,
            self.content,
            &part,
            of_stored,
            &mut pixels,
            [0, samples],
        )?;
        let mut pixels = colour.apply(pixels, samples)?;
        if number.kind(of_colours) == PixelKind::F32
            && let Pixels::U8(bytes) = &pixels
        {
            let mut numbers = Pixels::zeros(PixelKind::F32, bytes.len());
            let all = Strides {
                start: 0,
                rows: 0,
                columns: 1,
                channels: 1,
            };
            let dtype = Dtype {
                number,
                is_big_endian: false,
            };
            dtype.copy(
                bytes,
                all,
                [1, bytes.len(), 1],
                of_colours,
                &mut numbers,
                all,
            );
            pixels = numbers;
        }
        let (channels, meaning) = colour.channels(samples);
        let may_miss = missing.is_some();
        Ok(decoded(&part, channels, meaning, pixels, may_miss).oriented(orientation))
    }

    /// All pages as bands of one image.
    fn decode_bands(
        mut self,
        colour: &Colour,
        pages: usize,
        nodata: Nodata,
        choose: &mut Choose,
    ) -> Result<Decoded, String> {
        let samples = self.page.samples;
        let channels = pages * samples;
        let (part, orientation) = self.part(choose)?;
        self.check_size(channels, &part)?;
        let indices = match self.in_one_directory() {
            Some(_) => vec![0],
            None => self.indices(),
        };
        // Those of all pages decide, before any is read, whether the image is of numbers.
        let mut tags = Vec::with_capacity(indices.len());
        // The first page may speak for all.
        let mut of_first = None;
        for &index in &indices {
            self.seek(index)?;
            let page = Page::of(&mut self.decoder, self.meanings[index])?;
            page.check_compression()?;
            let tag = page::nodata_tag(&mut self.decoder)?.or_else(|| of_first.clone());
            if index == 0 {
                of_first.clone_from(&tag);
            }
            tags.push((page, nodata.missing(tag.as_deref())?));
        }
        let number = self.page.number()?;
        let kind = match tags
            .iter()
            .any(|(_, missing)| number.kind(*missing) == PixelKind::F32)
        {
            true => PixelKind::F32,
            false => PixelKind::U8,
        };
        let [rows, columns] = part.clone();
        let [height, width] = [rows.len(), columns.len()];
        let mut pixels = Pixels::zeros(kind, height * width * channels);
        let may_miss = tags.iter().any(|(_, missing)| missing.is_some());
        if self.in_one_directory().is_some() {
            let first = self.first_value().ok_or("it has no values; save it anew")?;
            let bytes = self.page_bytes().ok_or("its pages are too large")?;
            let dtype = Dtype {
                number,
                is_big_endian: self.content.starts_with(b"MM"),
            };
            let stride = |start, width: usize, channels| Strides {
                start,
                rows: width * channels,
                columns: channels,
                channels: 1,
            };
            let start = (rows.start * self.page.width + columns.start) * samples;
            for page in 0..pages {
                let data = &self.content[first + page * bytes..][..bytes];
                let from = stride(start, self.page.width, samples);
                let to = stride(page * samples, width, channels);
                dtype.copy(
                    data,
                    from,
                    [height, width, samples],
                    tags[0].1,
                    &mut pixels,
                    to,
                );
            }
        } else {
            for (place, (&index, (page, missing))) in indices.iter().zip(&tags).enumerate() {
                self.seek(index)?;
                page::check_plain(&mut self.decoder, samples)?;
                let place = [place * samples, channels];
                page.copy(
                    &mut self.decoder,
                    self.content,
                    &part,
                    *missing,
                    &mut pixels,
                    place,
                )?;
            }
        }
        let pixels = colour.apply(pixels, samples)?;
        Ok(decoded(&part, channels, Meaning::Bands, pixels, may_miss).oriented(orientation))
    }

    fn seek(&mut self, index: usize) -> Result<(), String> {
        (self.decoder.seek_to_image(index)).map_err(with_remedy)
    }
}

/// What the library says, and what can be done.
fn with_remedy(error: TiffError) -> String {
    let remedy = match error {
        TiffError::UnsupportedError(_) => {
            "convert it: gdal_translate -co COMPRESS=DEFLATE IN OUT, or remove it"
        }
        TiffError::LimitsExceeded => "cut it into tiles",
        _ => "fetch it again or remove it",
    };
    format!("{error}; {remedy}")
}

fn decoded(
    [rows, columns]: &Part,
    channels: usize,
    meaning: Meaning,
    pixels: Pixels,
    may_miss: bool,
) -> Decoded {
    Decoded {
        height: rows.len(),
        width: columns.len(),
        channels,
        meaning,
        pixels,
        may_miss,
        left_pages: 0,
        first: [rows.start, columns.start],
    }
}

#[cfg(test)]
mod files;
#[cfg(test)]
mod tests;
