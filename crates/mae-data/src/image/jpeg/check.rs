//! Whether every block of a JPEG is there, by reading all its codes.
//!
//! Decoders fill what is missing or damaged with grey or noise and report success, which would teach
//! a network to paint grey boxes.
//!
//! Source: ITU-T T.81, annex A.2.

use super::bits::Segments;
use super::header::{BLOCK, Coding as Process, Header, Scan, damaged};
use super::huffman::{Kind, Table};
use super::progressive::{read_band, read_first, refine_band};
use super::scan::{Coding, skip_block};

/// What is known of a component after the scans that were read.
struct Known {
    /// Of each coefficient, in zigzag order, the lowest bit that is known; `None` before any is.
    lowest_bit: [Option<u32>; BLOCK],
    /// Of each block of a progressive JPEG, a bit for each coefficient that is not 0.
    nonzero: Vec<u64>,
    /// Blocks from one row of `nonzero` to the next.
    stride: usize,
}

/// Reads all scans; returns the bytes up to the end of the last one.
///
/// `header` has read nothing yet; `accept` is asked before the first scan.
/// The error names what is missing or damaged, in the words of a broken image.
pub(super) fn check<'a>(
    content: &'a [u8],
    accept: impl FnOnce(&Header) -> Result<(), String>,
) -> Result<(Header<'a>, usize), String> {
    let mut header = Header::new(content)?;
    let Some(mut scan) = header.next_scan()? else {
        return Err("the jpeg has no scan, expected one at least; \
             it ends early, or holds tables for other files: fetch it again or remove it"
            .to_owned());
    };
    accept(&header)?;
    let mut known: Vec<Known> = (header.components.iter())
        .map(|component| {
            let [_, across] = padded_blocks(&header, component.sampling);
            Known {
                lowest_bit: [None; BLOCK],
                nonzero: Vec::new(),
                stride: across,
            }
        })
        .collect();
    let mut segments = Segments::default();
    for number in 1.. {
        note(&header, &scan, &mut known)?;
        let rest = segments.read(scan.data)?;
        read_scan(&header, &scan, &segments, &mut known)
            .map_err(|problem| problem.of_scan(number))?;
        if known.iter().all(Known::is_complete) {
            return Ok((header, content.len() - rest.len()));
        }
        header.go_on(rest);
        scan = match header.next_scan()? {
            Some(scan) => scan,
            None => break,
        };
    }
    let at = known.iter().position(|known| !known.is_complete());
    Err(format!(
        "the jpeg ends early: component {} of {} lacks {}; fetch it again",
        at.unwrap_or(0) + 1,
        known.len(),
        match known[at.unwrap_or(0)].lowest_bit {
            [None, ..] => "all its scans",
            _ => "its last scans",
        }
    ))
}

/// What is wrong with the data of a scan.
enum Problem {
    /// Blocks that are there, and those that should be.
    Early(usize, usize),
    /// Codes or numbers that no encoder writes, in a block.
    Noise(usize, usize),
    /// Data is left over after the last block of a segment.
    Left(usize),
    /// Parts between restart markers that are there, and those that should be.
    Segments(usize, usize),
    Other(String),
}

impl Problem {
    fn of_scan(self, number: usize) -> String {
        let damaged = "the jpeg is damaged";
        match self {
            Problem::Early(found, expected) => format!(
                "the jpeg ends early: scan {number} has {found} blocks, expected {expected}; \
                 fetch it again"
            ),
            Problem::Noise(block, blocks) => format!(
                "{damaged}: block {block} of {blocks} of scan {number} makes no sense; \
                 fetch it again"
            ),
            Problem::Left(block) => format!(
                "{damaged}: data is left over after block {block} of scan {number}; \
                 fetch it again"
            ),
            Problem::Segments(found, expected) => format!(
                "{damaged}: scan {number} is in {found} parts between restart markers, \
                 expected {expected}; fetch it again"
            ),
            Problem::Other(reason) => reason,
        }
    }
}

impl Known {
    fn is_complete(&self) -> bool {
        self.lowest_bit.iter().all(|&bit| bit == Some(0))
    }
}

/// Blocks of a component, down and across, that whole MCUs of all components have.
fn padded_blocks(header: &Header, sampling: [usize; 2]) -> [usize; 2] {
    let most = most_sampled(header);
    let sides = [header.height, header.width];
    [0, 1].map(|axis| sides[axis].div_ceil(8 * most[axis]) * sampling[axis])
}

fn most_sampled(header: &Header) -> [usize; 2] {
    [0, 1].map(|axis| {
        let factors = header.components.iter().map(|it| it.sampling[axis]);
        factors.max().unwrap_or(1)
    })
}

/// Notes which bits of which coefficients a scan brings, if it may.
fn note(header: &Header, scan: &Scan, known: &mut [Known]) -> Result<(), String> {
    let ([first, last], [before, after]) = (scan.band, scan.bits);
    let is_right = match header.coding {
        Process::Sequential => (first, last, before, after) == (0, 63, 0, 0),
        Process::Progressive => {
            // The first coefficient comes alone, others with one component.
            first <= last
                && last < BLOCK
                && (first == 0) == (last == 0)
                && (first == 0 || scan.components.len() == 1)
                && after <= 13
                && (before == 0 || before == after + 1)
        }
    };
    if !is_right {
        return Err(damaged("the header of a scan"));
    }
    for &component in &scan.components {
        for bit in &mut known[component].lowest_bit[first..=last] {
            let expected = (before > 0).then_some(before);
            if *bit != expected {
                return Err(damaged("the order of its scans"));
            }
            *bit = Some(after);
        }
    }
    Ok(())
}

fn read_scan(
    header: &Header,
    scan: &Scan,
    segments: &Segments,
    known: &mut [Known],
) -> Result<(), Problem> {
    let most = most_sampled(header);
    let sides = [header.height, header.width];
    // A scan of one component has as many blocks as its pixels need, others fill up their MCUs.
    let (mcus, samplings) = match scan.components[..] {
        [only] => {
            let sampling = header.components[only].sampling;
            let blocks = [0, 1].map(|axis| {
                let pixels = (sides[axis] * sampling[axis]).div_ceil(most[axis]);
                pixels.div_ceil(8)
            });
            (blocks, vec![[1, 1]])
        }
        _ => (
            [0, 1].map(|axis| sides[axis].div_ceil(8 * most[axis])),
            (scan.components.iter())
                .map(|&at| header.components[at].sampling)
                .collect(),
        ),
    };
    let mut tables = Vec::with_capacity(scan.components.len());
    for &at in &scan.components {
        tables.push(tables_of(header, scan, at).map_err(Problem::Other)?);
    }
    let mut codings = Vec::with_capacity(scan.components.len());
    for (&at, [dc, ac]) in scan.components.iter().zip(&tables) {
        let place = header.components[at].quantisation;
        let Some(Some(quantisation)) = header.quantisation.get(place) else {
            return Err(Problem::Other(format!(
                "the jpeg lacks quantisation table {place}, expected in the file itself; \
                 fetch it again, or write it whole by the program that made it"
            )));
        };
        codings.push(Coding::new(dc, ac, quantisation));
        if header.coding == Process::Progressive {
            let [down, across] = padded_blocks(header, header.components[at].sampling);
            known[at].nonzero.resize(down * across, 0);
        }
    }
    let is_sequential = header.coding == Process::Sequential;
    if is_sequential && codings.iter().any(Coding::has_no_zeros) && segments.has_hole() {
        return Err(Problem::Other(damaged("a run of zeros in its data")));
    }
    let count = mcus[0] * mcus[1];
    let interval = header.restart_interval.unwrap_or(count);
    let blocks_per_mcu: usize = samplings.iter().map(|[down, across]| down * across).sum();
    let blocks = count * blocks_per_mcu;
    for segment in 0..segments.len().min(count.div_ceil(interval)) {
        let mut bits = segments.bits(segment).expect("a segment that there is");
        let mut predictions = vec![0; scan.components.len()];
        let mut end_run = 0;
        let end = ((segment + 1) * interval).min(count);
        for mcu in segment * interval..end {
            let place = [mcu / mcus[1], mcu % mcus[1]];
            for (i, &at) in scan.components.iter().enumerate() {
                let [down, across] = samplings[i];
                for block in 0..down * across {
                    let read = if is_sequential {
                        skip_block(&codings[i], &mut bits, &mut predictions[i])
                    } else if scan.band[0] == 0 {
                        read_first(scan, &codings[i], &mut bits, &mut predictions[i])
                    } else {
                        let row = place[0] * down + block / across;
                        let column = place[1] * across + block % across;
                        let nonzero = row * known[at].stride + column;
                        let nonzero = &mut known[at].nonzero[nonzero];
                        match scan.bits[0] {
                            0 => read_band(scan, &tables[i][1], &mut bits, &mut end_run, nonzero),
                            _ => refine_band(scan, &tables[i][1], &mut bits, &mut end_run, nonzero),
                        }
                    };
                    if bits.is_overrun() {
                        return Err(Problem::Early(mcu * blocks_per_mcu, blocks));
                    }
                    if read.is_none() {
                        return Err(Problem::Noise(mcu * blocks_per_mcu + 1, blocks));
                    }
                }
            }
        }
        if end_run > 0 {
            return Err(Problem::Noise(end * blocks_per_mcu, blocks));
        }
        if bits.is_underrun() {
            return Err(Problem::Left(end * blocks_per_mcu));
        }
    }
    match (segments.len(), count.div_ceil(interval)) {
        (found, expected) if found == expected => Ok(()),
        (found, expected) => Err(Problem::Segments(found, expected)),
    }
}

/// The Huffman tables, for the first coefficient and the others, of which a scan needs one or both.
fn tables_of(header: &Header, scan: &Scan, at: usize) -> Result<[Table; 2], String> {
    let component = header.components[at];
    let kinds = [Kind::Dc, Kind::Ac];
    let mut tables = kinds.map(Table::new);
    let is_needed = [scan.band[0] == 0 && scan.bits[0] == 0, scan.band[1] > 0];
    let definitions = [
        (&header.dc_tables, component.dc_table),
        (&header.ac_tables, component.ac_table),
    ];
    for (((table, kind), is_needed), (definitions, place)) in
        (tables.iter_mut().zip(kinds).zip(is_needed)).zip(definitions)
    {
        if is_needed {
            let Some(Some(definition)) = definitions.get(place) else {
                return Err(format!(
                    "the jpeg lacks huffman table {place}, expected in the file itself; \
                     fetch it again, or write it whole by the program that made it"
                ));
            };
            table
                .define(definition, kind.max_size())
                .ok_or_else(|| damaged("a huffman table"))?;
        }
    }
    Ok(tables)
}
