//! Memory cut into parts, and memory that a thread keeps from one chunk to the next.

use std::cell::Cell;

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Values of a line of the cache.
pub const LINE: usize = 16;

/// Lends `body` one slice for each of `lens`, of whatever values, each from the beginning of a line on.
pub fn with_scratch<const N: usize>(lens: [usize; N], body: impl FnOnce([&mut [f32]; N])) {
    let mut scratch = SCRATCH.take();
    let lines = lens.map(|len| len.next_multiple_of(LINE));
    let len = lines.iter().sum::<usize>() + LINE;
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    let first = scratch.as_ptr().align_offset(LINE * size_of::<f32>());
    let mut lens = lens.into_iter();
    body(split_mut(&mut scratch[first..], lines).map(|part| {
        let len = lens.next().expect("as many");
        &mut part[..len]
    }));
    SCRATCH.set(scratch);
}

/// The first values of `data`, cut into slices of `lens`.
pub fn split_mut<const N: usize>(data: &mut [f32], lens: [usize; N]) -> [&mut [f32]; N] {
    let mut rest = data;
    lens.map(|len| {
        let (part, after) = std::mem::take(&mut rest).split_at_mut(len);
        rest = after;
        part
    })
}

/// [`split_mut`], shared.
pub fn split<const N: usize>(data: &[f32], lens: [usize; N]) -> [&[f32]; N] {
    let mut rest = data;
    lens.map(|len| {
        let (part, after) = rest.split_at(len);
        rest = after;
        part
    })
}
