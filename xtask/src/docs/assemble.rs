//! The book with the other documentation in it, so that all links lead somewhere in a browser, too.
//!
//! A chapter links to `../../architecture.md`, which is right where the sources are read.
//! mdBook makes pages of one folder only, so that page, and what it links to, is copied among the chapters.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// What is copied into `src`, from the root and from `docs`.
const OF_ROOT: &[&str] = &["CONTRIBUTING.md", "CHANGELOG.md"];
const OF_DOCS: &[&str] = &["architecture.md", "scaling.md", "results", "images"];

/// What links become in the copy, in this order; mdBook calls the page of a README `index`.
const LINKS: &[(&str, &str)] = &[
    ("](../../../", "]("),
    ("](../../", "]("),
    ("](docs/", "]("),
    ("README.md)", "index.md)"),
];

/// Pages of the copy that the book's own summary does not list.
const SUMMARY: &str = "
# Beside the book

- [Architecture](architecture.md)
- [Scaling](scaling.md)
- [Results](results/README.md)
  - [Fidelity](results/fidelity.md)
  - [Parity](results/parity.md)
  - [Evaluation](results/evaluation.md)
  - [Performance](results/performance.md)
  - [Ablations](results/ablation/README.md)
    - [The report](results/ablation/report.md)
- [Contributing](CONTRIBUTING.md)
- [Changelog](CHANGELOG.md)
";

/// Makes `target` the source of the whole book, in place of what is there.
///
/// # Errors
/// If a file cannot be read or written.
pub fn book(root: &Path, target: &Path) -> Result<()> {
    if target.exists() {
        fs::remove_dir_all(target)
            .with_context(|| format!("cannot replace {}", target.display()))?;
    }
    copy(&root.join("docs/book"), target)?;
    let src = target.join("src");
    for name in OF_ROOT {
        copy(&root.join(name), &src.join(name))?;
    }
    for name in OF_DOCS {
        copy(&root.join("docs").join(name), &src.join(name))?;
    }
    let summary = src.join("SUMMARY.md");
    let text = fs::read_to_string(&summary)? + SUMMARY;
    fs::write(summary, text)?;
    Ok(())
}

/// Copies a file or folder; Markdown with the links of [`LINKS`].
fn copy(from: &Path, to: &Path) -> Result<()> {
    let context = || format!("cannot copy {}", from.display());
    if from.is_dir() {
        fs::create_dir_all(to).with_context(context)?;
        for entry in fs::read_dir(from).with_context(context)? {
            let name = entry.with_context(context)?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
    } else if from.extension().is_some_and(|ending| ending == "md") {
        let text = fs::read_to_string(from).with_context(context)?;
        let replace = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
        fs::write(to, LINKS.iter().fold(text, replace)).with_context(context)?;
    } else {
        fs::copy(from, to).with_context(context)?;
    }
    Ok(())
}
