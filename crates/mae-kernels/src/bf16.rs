//! Products of matrices rounded to bf16, with sums in f32, where the processor has instructions for it.

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "instructions that this processor has")]
mod kernel;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "instructions that this processor has")]
mod product;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "instructions that this processor has")]
mod tile;

/// Rounds both matrices to bf16, and sums their products up in f32: by AMX where there is, else by AVX512-BF16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bf16(
    #[cfg(target_arch = "x86_64")] kernel::Instructions,
    #[cfg(not(target_arch = "x86_64"))] std::convert::Infallible,
);

impl Bf16 {
    /// None where the processor has neither, or the system does not let this program use it.
    pub fn here() -> Option<&'static Self> {
        #[cfg(target_arch = "x86_64")]
        {
            static HERE: std::sync::LazyLock<Option<Bf16>> =
                std::sync::LazyLock::new(|| kernel::Instructions::here().map(Bf16));
            HERE.as_ref()
        }
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// What it multiplies with, as manuals call it.
    pub fn instructions(self) -> &'static str {
        #[cfg(target_arch = "x86_64")]
        match self.0 {
            kernel::Instructions::Amx => "AMX",
            kernel::Instructions::Avx512Bf16 => "AVX512-BF16",
        }
        #[cfg(not(target_arch = "x86_64"))]
        match self.0 {}
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl crate::MatrixProduct for Bf16 {
    fn multiply(&self, _: crate::Base, _: crate::MatrixMut, _: crate::Matrix, _: crate::Matrix) {
        match self.0 {}
    }
}
