//! Commands for people to paste into a shell.

use std::borrow::Cow;
use std::path::Path;

/// `path` as one word of a command, in quotes where it needs them.
pub fn word(path: &Path) -> String {
    let path = path.to_string_lossy();
    // A name that holds a zero byte is none of a file.
    shlex::try_quote(&path).map_or_else(|_| path.to_string(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_quotes_has_them() {
        assert_eq!(word("runs/photos-2".as_ref()), "runs/photos-2");
        for name in ["o ut", "it's", "a;b", "$x"] {
            let quoted = word(name.as_ref());
            assert_ne!(quoted, name);
            assert_eq!(shlex::split(&quoted).unwrap(), [name]);
        }
    }
}
