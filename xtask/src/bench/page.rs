//! `docs/results/performance.md`, of which the parts between markers are written by this program.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{Precision, Section, record::write};

const NAME: &str = "docs/results/performance.md";

/// What a page that is not there yet begins as.
const NEW: &str = "\
# Performance

How fast this project is, beside other systems on the same machine at the same time.
The parts between the markers are written by `cargo xtask bench`, one for each processor that it was run on: change the program, not the numbers.

```sh
cargo xtask bench all --peers
```

## Loading images

<!-- bench:loader:begin -->
<!-- bench:loader:end -->

## One training step

<!-- bench:step:begin -->
<!-- bench:step:end -->

## One training step in bf16

<!-- bench:step-bf16:begin -->
<!-- bench:step-bf16:end -->
";

/// The page, read before anything is measured.
#[derive(Debug)]
pub struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    /// The workspace's page, or a new one.
    ///
    /// # Errors
    /// If the page is there and lacks a marker.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join(NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => NEW.to_string(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let step = [Precision::Fp32, Precision::Bf16].map(Section::Step);
        for section in [Section::Loader].into_iter().chain(step) {
            if parts(&text, section).is_none() {
                let [begin, end] = markers(section);
                bail!(
                    "{} has no lines `{begin}` and after it `{end}`, each once: \
                     put them where the {section} measurements belong, or remove the file to have a new one",
                    path.display()
                );
            }
        }
        Ok(Self { path, text })
    }

    /// Puts `body` between the section's markers, writes the page, and says which lines changed.
    pub fn replace(&mut self, section: Section, body: &str) -> Result<()> {
        let (before, old, after) = parts(&self.text, section).context("checked when opened")?;
        let new = format!("\n{}\n", body.trim_end());
        let changes = changes(old, &new);
        let text = format!("{before}{new}{after}");
        if text == self.text {
            eprintln!("{NAME}: nothing changed");
            return Ok(());
        }
        write(&self.path, &text)?;
        self.text = text;
        eprintln!("{NAME}: the part {section} changed:\n{changes}");
        Ok(())
    }
}

fn markers(section: Section) -> [String; 2] {
    ["begin", "end"].map(|place| format!("<!-- bench:{section}:{place} -->"))
}

/// The text up to the end of the first marker, between the two, and from the second on.
fn parts(text: &str, section: Section) -> Option<(&str, &str, &str)> {
    let [begin, end] = markers(section);
    if text.matches(&begin).count() != 1 || text.matches(&end).count() != 1 {
        return None;
    }
    let start = text.find(&begin)? + begin.len();
    let length = text[start..].find(&end)?;
    let (before, rest) = text.split_at(start);
    let (between, after) = rest.split_at(length);
    Some((before, between, after))
}

/// The lines that only one of the texts has: the old one's with a minus, the new one's with a plus.
fn changes(old: &str, new: &str) -> String {
    let only = |text: &str, other: &str, sign: char| -> String {
        text.lines()
            .filter(|line| other.lines().all(|one| one != *line))
            .map(|line| format!("{sign} {line}\n"))
            .collect()
    };
    only(old, new, '-') + &only(new, old, '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_page_is_written_and_a_part_replaced() {
        let root = tempfile::tempdir().unwrap();
        let mut page = Page::open(root.path()).unwrap();
        page.replace(Section::Step(Precision::Fp32), "steps\n")
            .unwrap();
        page.replace(Section::Loader, "loaders").unwrap();

        let mut page = Page::open(root.path()).unwrap();
        page.replace(Section::Loader, "other loaders").unwrap();
        let text = fs::read_to_string(root.path().join(NAME)).unwrap();
        let expect = NEW
            .replace("loader:begin -->\n", "loader:begin -->\nother loaders\n")
            .replace("step:begin -->\n", "step:begin -->\nsteps\n");
        assert_eq!(text, expect);
    }

    #[test]
    fn a_page_without_a_marker_is_refused() {
        let check = |text: &str, expect: &str| {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join(NAME);
            write(&path, text).unwrap();
            let message = Page::open(root.path()).unwrap_err().to_string();
            assert!(message.contains(expect), "{message}");
            assert!(message.contains("remove the file"), "{message}");
            assert_eq!(fs::read_to_string(path).unwrap(), text);
        };
        check("# Performance\n", "<!-- bench:loader:begin -->");
        check(
            &NEW.replace("bench:step:end", "step"),
            "<!-- bench:step:end -->",
        );
        check(
            &NEW.replace(":begin", ":x")
                .replace(":end", ":begin")
                .replace(":x", ":end"),
            "bench:loader",
        );
        check(&format!("{NEW}{NEW}"), "each once");
    }

    #[test]
    fn changed_lines_are_told() {
        assert_eq!(changes("a\nb\n", "a\nc\n"), "- b\n+ c\n");
        assert_eq!(changes("a\n", "a\n"), "");
    }
}
