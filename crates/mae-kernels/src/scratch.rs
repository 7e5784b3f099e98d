//! Memory cut into parts, and memory that a thread keeps from one chunk to the next.

use std::cell::Cell;

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Lends `body` one slice for each of `lens`, of whatever values.
pub fn with_scratch<const N: usize>(lens: [usize; N], body: impl FnOnce([&mut [f32]; N])) {
    let mut scratch = SCRATCH.take();
    let len = lens.iter().sum();
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    body(split_mut(&mut scratch, lens));
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
