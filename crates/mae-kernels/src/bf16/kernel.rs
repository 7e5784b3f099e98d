//! Two left tiles times two right ones, by AMX or AVX512-BF16.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::tile::{Pair, SIDE};
use crate::matrix::Base;

/// Rows and columns of what a kernel computes.
pub const BLOCK: usize = 2 * SIDE;

/// Which instructions multiply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instructions {
    /// Tile by tile.
    Amx,
    /// Pairs of values, 16 at once.
    Avx512Bf16,
}

impl Instructions {
    /// The fastest that this processor, and the system, let this program use.
    pub fn here() -> Option<Self> {
        let packs = is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16");
        match (packs, amx()) {
            (true, true) => Some(Self::Amx),
            (true, false) => Some(Self::Avx512Bf16),
            (false, _) => None,
        }
    }

    /// Lets this thread multiply until the result is dropped.
    ///
    /// # Safety
    /// The processor has these instructions.
    pub unsafe fn begin(self) -> Started {
        if self == Self::Amx {
            // SAFETY: the caller's.
            unsafe { configure() };
        }
        Started(self)
    }
}

/// A thread that may multiply.
pub struct Started(Instructions);

impl Started {
    /// `c = base + a b`, as far as it has rows and columns, of which a block has no more than 32.
    ///
    /// `a` and `b` are pairs of tiles, one pair after the other along what is summed over; the rows of `c` begin
    /// `stride` apart.
    ///
    /// # Panics
    /// If the numbers of pairs differ, or `c` or `base` is smaller than that.
    pub fn multiply(
        &self,
        base: Base,
        c: &mut [f32],
        stride: usize,
        [rows, columns]: [usize; 2],
        a: &[Pair],
        b: &[Pair],
    ) {
        let (rows, columns) = (rows.min(BLOCK), columns.min(BLOCK));
        assert!(!a.is_empty() && a.len() == b.len());
        assert!(rows > 0 && columns > 0 && columns <= stride);
        assert!(c.len() >= (rows - 1) * stride + columns);
        if let Base::Row(row) = base {
            assert!(row.len() >= columns);
        }
        for row in c.chunks(stride).skip(BLOCK).take(BLOCK) {
            let row = row.as_ptr();
            // SAFETY: hints, whatever the address.
            unsafe {
                _mm_prefetch::<_MM_HINT_ET0>(row.cast());
                _mm_prefetch::<_MM_HINT_ET0>(row.wrapping_add(SIDE).cast());
            }
        }
        if [rows, columns] == [BLOCK, BLOCK] {
            let c = Block {
                start: c.as_mut_ptr(),
                stride,
            };
            // SAFETY: `c` and `base` have 32 rows of 32 columns, `a` and `b` as many pairs.
            unsafe { self.multiply_block(base, c, a, b) };
            return;
        }
        let mut whole = MaybeUninit::<[f32; BLOCK * BLOCK]>::uninit();
        let block = Block {
            start: whole.as_mut_ptr().cast(),
            stride: BLOCK,
        };
        // SAFETY: `whole` is 32 rows of 32 columns, and then has values.
        let whole = unsafe {
            self.multiply_block(Base::Nothing, block, a, b);
            whole.assume_init()
        };
        let mask = |columns: usize| ((1_u32 << columns.min(SIDE)) - 1) as u16;
        let masks = [mask(columns), mask(columns.saturating_sub(SIDE))];
        // SAFETY: the instructions are there; `c` and `base` were checked.
        unsafe { add_part(base, c.as_mut_ptr(), stride, rows, masks, &whole) };
    }

    /// # Safety
    /// `c` and `base` are valid for 32 rows of 32 columns, and there are as many pairs in `a` as in `b`, at least one.
    unsafe fn multiply_block(&self, base: Base, c: Block, a: &[Pair], b: &[Pair]) {
        let base = match base {
            Base::Nothing => None,
            Base::Result => Some(c),
            Base::Row(row) => Some(Block {
                start: row.as_ptr().cast_mut(),
                stride: 0,
            }),
        };
        // SAFETY: the caller's, and `begin`'s: the instructions are there, and AMX is configured.
        unsafe {
            match self.0 {
                Instructions::Amx => amx_multiply(base, c, a, b),
                Instructions::Avx512Bf16 => avx512_multiply(base, c, a, b),
            }
        }
    }
}

/// 32 rows of 32 values that begin `stride` apart.
#[derive(Clone, Copy)]
struct Block {
    start: *mut f32,
    stride: usize,
}

impl Block {
    /// Row `row` from column `column` on.
    ///
    /// # Safety
    /// The block has them.
    unsafe fn at(self, row: usize, column: usize) -> *mut f32 {
        // SAFETY: the caller's.
        unsafe { self.start.add(row * self.stride + column) }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.0 == Instructions::Amx {
            // SAFETY: AMX is there, for it was configured. Nothing is in the tiles between two products.
            unsafe { asm!("tilerelease", options(nomem, nostack)) };
        }
    }
}

/// Whether there are tiles of bf16, and Linux gives this process the right to use them, for which it must be asked.
fn amx() -> bool {
    const TILE_AND_BF16: u32 = 1 << 24 | 1 << 22;
    #[cfg(target_os = "linux")]
    {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        let has = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILE_AND_BF16 == TILE_AND_BF16;
        // SAFETY: it takes two numbers, and changes nothing but what this process may do.
        has && unsafe {
            libc::syscall(
                libc::SYS_arch_prctl,
                ARCH_REQ_XCOMP_PERM,
                XFEATURE_XTILEDATA,
            )
        } == 0
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = TILE_AND_BF16;
        false
    }
}

/// Makes all eight tile registers 16 lines of 64 bytes.
///
/// # Safety
/// There is AMX, and the right to use it.
unsafe fn configure() {
    #[repr(C, align(64))]
    struct Config {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes_per_line: [u16; 16],
        lines: [u8; 16],
    }
    let mut config = Config {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        bytes_per_line: [0; 16],
        lines: [0; 16],
    };
    config.bytes_per_line[..8].fill(64);
    config.lines[..8].fill(16);
    // SAFETY: the caller's; the configuration is one of palette 1.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(readonly, nostack)) };
}

/// # Safety
/// As [`Started::multiply_block`]; AMX is there and configured.
unsafe fn amx_multiply(base: Option<Block>, c: Block, a: &[Pair], b: &[Pair]) {
    let from = base.unwrap_or(c);
    // SAFETY: `a` and `b` are read to their ends, `base` and `c` are the caller's.
    unsafe {
        asm!(
            "test {has_base:e}, {has_base:e}",
            "jz 2f",
            "tileloadd tmm0, [{from} + {from_stride}]",
            "tileloadd tmm1, [{from} + {from_stride} + 64]",
            "tileloadd tmm2, [{from_below} + {from_stride}]",
            "tileloadd tmm3, [{from_below} + {from_stride} + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "tileloadd tmm4, [{a} + {line}]",
            "tileloadd tmm6, [{b} + {line}]",
            "tileloadd tmm7, [{b} + {line} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {line} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {left}",
            "jnz 3b",
            "tilestored [{c} + {stride}], tmm0",
            "tilestored [{c} + {stride} + 64], tmm1",
            "tilestored [{below} + {stride}], tmm2",
            "tilestored [{below} + {stride} + 64], tmm3",
            a = inout(reg) a.as_ptr() => _,
            b = inout(reg) b.as_ptr() => _,
            left = inout(reg) a.len() => _,
            has_base = in(reg) u32::from(base.is_some()),
            from = in(reg) from.start,
            from_below = in(reg) from.at(SIDE, 0),
            from_stride = in(reg) from.stride * size_of::<f32>(),
            c = in(reg) c.start,
            below = in(reg) c.at(SIDE, 0),
            stride = in(reg) c.stride * size_of::<f32>(),
            line = in(reg) size_of::<__m512i>(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// # Safety
/// As [`Started::multiply_block`]; AVX512-BF16 is there.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn avx512_multiply(base: Option<Block>, c: Block, a: &[Pair], b: &[Pair]) {
    /// Rows whose sums, of 32 columns, stay in registers.
    const ROWS: usize = 8;
    for first in (0..BLOCK).step_by(ROWS) {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        if let Some(base) = base {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (half, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: `base` is the caller's.
                    *sum = unsafe { _mm512_loadu_ps(base.at(first + row, half * SIDE)) };
                }
            }
        }
        for (a, b) in a.iter().zip(b) {
            let a = a[first / SIDE][first % SIDE..].as_ptr().cast::<i32>();
            for pair in 0..SIDE {
                // SAFETY: a line is 64 bytes, all of whose values are bf16, and aligned to as many.
                let b = [0, 1]
                    .map(|half| unsafe { std::mem::transmute::<__m512i, __m512bh>(b[half][pair]) });
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: eight lines of 16 pairs follow `a`; any bits are pairs of bf16.
                    let a: __m512bh = unsafe {
                        std::mem::transmute(_mm512_set1_epi32(*a.add(row * SIDE + pair)))
                    };
                    sums[0] = _mm512_dpbf16_ps(sums[0], a, b[0]);
                    sums[1] = _mm512_dpbf16_ps(sums[1], a, b[1]);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                // SAFETY: `c` is the caller's.
                unsafe { _mm512_storeu_ps(c.at(first + row, half * SIDE), *sum) };
            }
        }
    }
}

/// `c = base + whole`, in `rows` rows and the columns of `masks`.
///
/// # Safety
/// AVX-512 is there; `c` and `base` have these rows and columns.
#[target_feature(enable = "avx512f")]
unsafe fn add_part(
    base: Base,
    c: *mut f32,
    stride: usize,
    rows: usize,
    masks: [u16; 2],
    whole: &[f32; BLOCK * BLOCK],
) {
    for (i, row) in whole.chunks_exact(BLOCK).take(rows).enumerate() {
        for (half, (mask, part)) in masks.into_iter().zip(row.chunks_exact(SIDE)).enumerate() {
            // SAFETY: what a mask leaves out is not touched; all else is the caller's.
            unsafe {
                let c = c.wrapping_add(i * stride + half * SIDE);
                let part = _mm512_loadu_ps(part.as_ptr());
                let before = match base {
                    Base::Nothing => _mm512_setzero_ps(),
                    Base::Result => _mm512_maskz_loadu_ps(mask, c),
                    Base::Row(row) => {
                        _mm512_maskz_loadu_ps(mask, row.as_ptr().wrapping_add(half * SIDE))
                    }
                };
                _mm512_mask_storeu_ps(c, mask, _mm512_add_ps(before, part));
            }
        }
    }
}
