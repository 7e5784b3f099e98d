//! Which libtorch was loaded.

use crate::ffi::{ext_built_version, ext_loaded_version, take};
use crate::{Error, Result};

/// The version of the libtorch that was loaded, as `2.13.0` or `2.13.0+cu130`; empty if it does not say so.
pub fn version() -> String {
    // SAFETY: it takes nothing, and answers with a text for its caller.
    unsafe { take(ext_loaded_version()) }
}

/// Whether the libtorch that was loaded is of the version that this was compiled for, but for its last number.
///
/// A program that finds libtorch when it starts should ask before it calls anything else: functions of another
/// version may be missing, or expect something else.
///
/// # Errors
/// With both versions, if it is of another one.
pub fn check_version() -> Result<()> {
    // SAFETY: it takes nothing, and answers with a text for its caller.
    let built = unsafe { take(ext_built_version()) };
    compare(&built, &version())
}

fn compare(built: &str, loaded: &str) -> Result<()> {
    let series = |version: &str| version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    let (wanted, found) = (series(built), series(loaded));
    if loaded.is_empty() || wanted == found {
        return Ok(());
    }
    Err(Error(format!(
        "this program was built for version {wanted}, and {loaded} was loaded; \
         with Python's package, pip install 'torch=={wanted}.*'"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compiled_for_is_what_was_loaded() {
        assert!(version().starts_with("2."), "{:?}", version());
        check_version().unwrap();
    }

    #[test]
    fn another_version_is_refused_with_what_to_install() {
        compare("2.13.0", "2.13.1+cu130").unwrap();
        let refused = compare("2.13.0", "2.12.0").unwrap_err().to_string();
        for words in [
            "built for version 2.13, and 2.12.0 was loaded",
            "'torch==2.13.*'",
        ] {
            assert!(refused.contains(words), "{refused}");
        }
        assert!(compare("2.13.0", "2.1.3").is_err());
    }
}
