//! The commands in the documentation: what the tests of this crate and of `mae-train` read from it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A command line in a page, and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// `PAGE:LINE`, for messages.
    pub place: String,
    /// Its words, without where its output goes.
    pub words: Vec<String>,
    /// The file that its output goes to.
    pub output: Option<String>,
    /// Whether it stands below `<!-- run -->`, so that a test runs it.
    pub is_run: bool,
}

/// The README and the chapters of the book.
pub fn pages(root: &Path) -> Vec<PathBuf> {
    let chapters = fs::read_dir(root.join("docs/book/src")).expect("the book's chapters");
    let mut pages: Vec<PathBuf> = chapters
        .map(|entry| entry.expect("a chapter").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    pages.sort();
    pages.insert(0, root.join("README.md"));
    pages
}

/// The command lines of a page: those of its blocks of `sh`, and those between backticks that begin with one of the
/// programs.
pub fn commands(page: &Path) -> Vec<Command> {
    let text = fs::read_to_string(page).expect("a page");
    let name = page.file_name().unwrap_or_default().to_string_lossy();
    let (mut all, mut fence, mut is_run) = (Vec::new(), None, false);
    let mut begun = String::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{name}:{}", number + 1);
        match (fence, line.strip_prefix("```")) {
            (None, Some(language)) => fence = Some(language),
            (Some(_), Some(_)) => (fence, is_run) = (None, false),
            (Some("sh"), None) => {
                begun += line.trim_end_matches('\\');
                if !line.ends_with('\\') {
                    add(&mut all, &begun, &place, is_run);
                    begun.clear();
                }
            }
            (Some(_), None) => {}
            (None, None) if line == "<!-- run -->" => is_run = true,
            (None, None) => {
                let spans = line.split('`').skip(1).step_by(2);
                let is_command = |span: &str| {
                    let programs = ["mae-train ", "cargo xtask "];
                    programs.iter().any(|program| span.starts_with(program))
                };
                for span in spans.filter(|span| is_command(span)) {
                    add(&mut all, span, &place, false);
                }
            }
        }
    }
    all
}

/// Adds the commands of a line, which may end in a comment.
fn add(all: &mut Vec<Command>, line: &str, place: &str, is_run: bool) {
    let words = shlex::split(line).unwrap_or_else(|| panic!("{place}: unbalanced quotes: {line}"));
    for part in words.split(|word| ["|", "&&", ";"].contains(&word.as_str())) {
        let mut sides = part.split(|word| word == ">");
        let words = sides.next().unwrap_or_default().to_vec();
        if !words.is_empty() {
            all.push(Command {
                place: place.into(),
                words,
                output: sides.next().and_then(|file| file.first()).cloned(),
                is_run,
            });
        }
    }
}
