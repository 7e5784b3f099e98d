//! Which libtorch was loaded.

use crate::Result;
use crate::ffi::{check, ext_check_version};

/// Whether the libtorch that was loaded is of the version that this was compiled for, but for its last number.
///
/// A program that finds libtorch when it starts should ask before it calls anything else: functions of another
/// version may be missing, or expect something else.
///
/// # Errors
/// With both versions, if it is of another one.
pub fn check_version() -> Result<()> {
    // SAFETY: it takes nothing.
    check(unsafe { ext_check_version() })
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_was_compiled_for_is_what_was_loaded() {
        super::check_version().unwrap();
    }
}
