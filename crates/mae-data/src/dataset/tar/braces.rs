//! `shards-{000..012}.tar`, as a shell would write it out.

use std::path::{Path, PathBuf};

use crate::error::DataError;

/// Linux maps 65,530 files of one process at most.
const MAX_PATHS: usize = 60_000;

/// The paths that a pattern stands for, in its order; a file that is called so stands for itself.
pub(super) fn expand(pattern: &Path) -> Result<Vec<PathBuf>, DataError> {
    let text = match pattern.to_str() {
        Some(text) if text.contains('{') && !pattern.exists() => text,
        _ => return Ok(vec![pattern.to_owned()]),
    };
    let mut paths = vec![String::new()];
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let alternatives = after
            .split_once('}')
            .ok_or_else(|| "a { without a }".to_owned())
            .and_then(|(inside, after)| {
                rest = after;
                alternatives(inside)
            })
            .and_then(|found| match found.len().saturating_mul(paths.len()) {
                0..=MAX_PATHS => Ok(found),
                count => Err(format!("{count} files, more than {MAX_PATHS}")),
            })
            .map_err(|found| DataError::Config {
                key: "shards",
                expected: "paths with {000..012} or {a,b} in them".to_owned(),
                found: format!("{text}: {found}"),
                remedy: "write, for example, shards-{0000..0012}.tar".to_owned(),
            })?;
        paths = paths
            .iter()
            .flat_map(|path| {
                (alternatives.iter()).map(move |found| format!("{path}{before}{found}"))
            })
            .collect();
    }
    Ok(paths
        .into_iter()
        .map(|path| PathBuf::from(path + rest))
        .collect())
}

fn alternatives(inside: &str) -> Result<Vec<String>, String> {
    if inside.contains('{') {
        return Err("braces in braces".to_owned());
    }
    if inside.contains(',') {
        return Ok(inside.split(',').map(str::to_owned).collect());
    }
    let not_a_range = || format!("{{{inside}}}");
    let (first, last) = inside.split_once("..").ok_or_else(not_a_range)?;
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<usize>().ok(),
        false => None,
    };
    let (low, high) = number(first).zip(number(last)).ok_or_else(not_a_range)?;
    if low > high {
        return Err(format!("{{{inside}}}, whose first number is the larger"));
    }
    if high - low >= MAX_PATHS {
        return Err(format!("{{{inside}}}, more than {MAX_PATHS} files"));
    }
    let is_padded = [first, last].map(|end| end.len() > 1 && end.starts_with('0'));
    let width = match is_padded {
        [false, false] => 0,
        _ => first.len().max(last.len()),
    };
    Ok((low..=high)
        .map(|number| format!("{number:0width$}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, expected: &str) {
        let found = match expand(Path::new(pattern)) {
            Ok(paths) => {
                let paths: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
                paths.join(" ")
            }
            Err(error) => error.to_string(),
        };
        assert!(found.contains(expected), "{pattern}: {found}");
    }

    #[test]
    fn braces_stand_for_what_a_shell_makes_of_them() {
        check("a.tar", "a.tar");
        check("s-{08..11}.tar", "s-08.tar s-09.tar s-10.tar s-11.tar");
        check("s-{8..10}.tar", "s-8.tar s-9.tar s-10.tar");
        check("s-{0..2}", "s-0 s-1 s-2");
        check("{b,a}-{0..1}.tar", "b-0.tar b-1.tar a-0.tar a-1.tar");
        check("x{,-val}.tar", "x.tar x-val.tar");
        check("a}.tar", "a}.tar");
    }

    #[test]
    fn braces_that_stand_for_nothing_are_refused() {
        check(
            "a{.tar",
            "found a{.tar: a { without a }; write, for example",
        );
        check("a{0}.tar", "found a{0}.tar: {0}");
        check("a{x..y}.tar", "{x..y}");
        check("a{+1..3}.tar", "{+1..3}");
        check("a{0..}.tar", "{0..}");
        check("a{5..3}.tar", "{5..3}, whose first number is the larger");
        check("a{b{0..1},c}.tar", "braces in braces");
        check("a{0..18446744073709551615}", "more than 60000 files");
        check("{0..299}{0..299}", "90000 files, more than 60000");
    }

    #[test]
    fn a_file_with_braces_in_its_name_is_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a{0..1}.tar");
        std::fs::write(&path, "").unwrap();
        assert_eq!(expand(&path).unwrap(), [path]);
    }
}
