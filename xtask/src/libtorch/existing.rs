//! Judging a libtorch that is already on the machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use super::VERSION;

/// The library that every libtorch has, as each system names it.
const CORE_LIBRARIES: [&str; 3] = ["libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.dll"];

/// Checks that `libtorch` is a libtorch of the [`VERSION`] that the workspace needs.
///
/// # Errors
/// If `libtorch` is no directory, has no libtorch library, or is of another or of no known version.
/// As in torch-sys' own build, `LIBTORCH_BYPASS_VERSION_CHECK` turns the comparison of versions off.
pub fn check(libtorch: &Path) -> Result<()> {
    if !libtorch.is_dir() {
        bail!("{} is not a directory", libtorch.display());
    }
    let libraries = libtorch.join("lib");
    if !CORE_LIBRARIES
        .iter()
        .any(|name| libraries.join(name).is_file())
    {
        bail!(
            "{} holds no libtorch: there is no {} in it",
            libraries.display(),
            CORE_LIBRARIES[0]
        );
    }
    if env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some() {
        return Ok(());
    }
    match version(libtorch) {
        Some((found, _)) if found == VERSION => Ok(()),
        Some((found, file)) => {
            bail!(
                "{} is libtorch {found} (says {}), expected {VERSION}",
                libtorch.display(),
                file.display()
            )
        }
        None => bail!(
            "cannot tell which version {} is, expected {VERSION}: write the version into {} if you know it",
            libtorch.display(),
            libtorch.join("build-version").display()
        ),
    }
}

/// The version without its local part (`2.13.0` of `2.13.0+cpu`), and the file that says it.
fn version(libtorch: &Path) -> Option<(String, PathBuf)> {
    let read = |file: &str, parse: fn(&str) -> Option<String>| {
        let file = libtorch.join(file);
        let version = parse(&fs::read_to_string(&file).ok()?)?;
        Some((version, file))
    };
    // PyTorch's archives have the first, its headers since 2.8 the second and before that the third,
    // a Python package without headers only the last.
    read("build-version", |text| Some(release(text.trim())))
        .or_else(|| read("include/torch/headeronly/version.h", from_macros))
        .or_else(|| {
            read(
                "include/torch/csrc/api/include/torch/version.h",
                from_macros,
            )
        })
        .or_else(|| read("version.py", from_python))
}

fn release(version: &str) -> String {
    version.split('+').next().unwrap_or_default().to_owned()
}

fn from_macros(header: &str) -> Option<String> {
    let number = |name: &str| {
        header.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("#define") && words.next() == Some(name)).then(|| words.next())?
        })
    };
    Some(format!(
        "{}.{}.{}",
        number("TORCH_VERSION_MAJOR")?,
        number("TORCH_VERSION_MINOR")?,
        number("TORCH_VERSION_PATCH")?
    ))
}

fn from_python(module: &str) -> Option<String> {
    let value = module
        .lines()
        .find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(release(value.trim().trim_matches(['\'', '"'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_files(files: &[(&str, &str)], expect: Result<(), &[&str]>) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        match (check(directory.path()), expect) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(words)) => {
                let message = format!("{error:#}");
                let path = directory.path().display().to_string();
                for word in words.iter().copied().chain([path.as_str()]) {
                    assert!(message.contains(word), "no {word:?} in: {message}");
                }
            }
            (found, expect) => panic!("found {found:?}, expected {expect:?}"),
        }
    }

    const LIBRARY: (&str, &str) = ("lib/libtorch_cpu.so", "");
    const MACROS: &str = "/// Major\n#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 13\n\
                          #define TORCH_VERSION_PATCH 0\n#define TORCH_VERSION \\\n  \"2.13.0\"\n";

    #[test]
    fn every_place_that_says_the_version_is_read() {
        check_files(&[LIBRARY, ("build-version", "2.13.0+cpu\n")], Ok(()));
        check_files(
            &[LIBRARY, ("include/torch/headeronly/version.h", MACROS)],
            Ok(()),
        );
        check_files(
            &[
                LIBRARY,
                ("include/torch/csrc/api/include/torch/version.h", MACROS),
            ],
            Ok(()),
        );
        check_files(
            &[
                LIBRARY,
                (
                    "version.py",
                    "from typing import Optional\n__version__ = '2.13.0+cu130'\n",
                ),
            ],
            Ok(()),
        );
    }

    #[test]
    fn those_of_other_systems_are_taken() {
        let version = ("build-version", "2.13.0\n");
        check_files(&[("lib/libtorch_cpu.dylib", ""), version], Ok(()));
        check_files(&[("lib/torch_cpu.dll", ""), version], Ok(()));
    }

    #[test]
    fn another_version_is_refused_by_name() {
        check_files(
            &[LIBRARY, ("build-version", "2.12.1")],
            Err(&["2.12.1", "2.13.0", "build-version"]),
        );
        let older = MACROS.replace("MINOR 13", "MINOR 9");
        check_files(
            &[LIBRARY, ("include/torch/headeronly/version.h", &older)],
            Err(&["2.9.0", "2.13.0", "version.h"]),
        );
        check_files(
            &[LIBRARY, ("version.py", "__version__ = \"2.8.0\"")],
            Err(&["2.8.0", "version.py"]),
        );
    }

    #[test]
    fn what_is_no_libtorch_is_refused() {
        check_files(&[LIBRARY], Err(&["cannot tell", "2.13.0"]));
        check_files(&[("build-version", "2.13.0")], Err(&["libtorch_cpu.so"]));
        let message = check(Path::new("/no/such/libtorch"))
            .unwrap_err()
            .to_string();
        assert!(message.contains("/no/such/libtorch"), "{message}");
    }
}
