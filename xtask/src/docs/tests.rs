//! What the documentation says is so: its keys, its links and its commands.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::{Parser, error::ErrorKind};

use super::{assemble, blocks, keys};
use crate::{Cli, cargo};

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// README, CONTRIBUTING, CHANGELOG and all Markdown below `docs`.
fn all_pages(root: &Path) -> Vec<PathBuf> {
    let names = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let mut pages = names.map(|name| root.join(name)).to_vec();
    add_pages(&root.join("docs"), &mut pages);
    pages
}

fn add_pages(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_pages(&path, pages);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            pages.push(path);
        }
    }
}

/// The targets of the links and pictures of a page, outside of blocks of code.
fn links(text: &str) -> Vec<String> {
    let mut is_code = false;
    let prose = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    prose
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .collect()
}

/// The anchors of a page's headings, as mdBook and forges name them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let letters = line.trim_start_matches('#').trim().to_lowercase();
            let kept = letters
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}

#[test]
fn the_chapter_of_keys_is_what_the_sources_give() {
    let root = cargo::workspace_root();
    let committed = read(&root.join(keys::CHAPTER));
    assert!(
        committed == keys::chapter(&root).unwrap(),
        "{} is not what the sources give: run `cargo xtask docs`",
        keys::CHAPTER
    );
}

#[test]
fn the_default_that_a_key_documents_is_that_of_its_code() {
    let number = |text: &str| {
        let word = text
            .split([' ', ';', ',', ':'])
            .next()
            .unwrap()
            .trim_matches('`');
        match word.split_once('/') {
            Some((over, under)) => over.parse::<f64>().unwrap() / under.parse::<f64>().unwrap(),
            None => match word.parse::<bool>() {
                Ok(truth) => f64::from(truth),
                Err(_) => word.parse().unwrap_or(f64::NAN),
            },
        }
    };
    let mut compared = 0;
    for key in keys::all(&cargo::workspace_root()).unwrap() {
        if let Some(literal) = &key.literal {
            let documented = key.default.as_deref().unwrap_or_default();
            assert_eq!(number(documented), number(literal), "{}", key.name);
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} keys were compared");
}

/// That the relative links of these pages lead to files and headings that exist.
fn check_links(pages: &[PathBuf]) {
    for page in pages {
        let text = read(page);
        for link in links(&text) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.clone(),
                // What mdBook calls the page of a README.
                file if file.ends_with("index.md") => {
                    page.with_file_name(file.replace("index.md", "README.md"))
                }
                file => page.with_file_name(file),
            };
            assert!(target.exists(), "{}: there is no {link}", page.display());
            let is_page = target.extension().is_some_and(|ending| ending == "md");
            assert!(
                anchor.is_empty() || !is_page || anchors(&read(&target)).contains(anchor),
                "{}: {link} has no such heading",
                page.display()
            );
        }
    }
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    check_links(&all_pages(&cargo::workspace_root()));
}

#[test]
fn every_link_leads_somewhere_in_the_assembled_book_too() {
    let folder = tempfile::tempdir().unwrap();
    assemble::book(&cargo::workspace_root(), folder.path()).unwrap();
    let mut pages = Vec::new();
    add_pages(folder.path(), &mut pages);
    check_links(&pages);
}

#[test]
fn every_chapter_is_in_the_summary() {
    let src = cargo::workspace_root().join("docs/book/src");
    let listed: BTreeSet<String> = links(&read(&src.join("SUMMARY.md"))).into_iter().collect();
    let names = fs::read_dir(&src)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let chapters: BTreeSet<String> = names
        .map(|name| name.into_string().unwrap())
        .filter(|name| name.ends_with(".md") && name != "SUMMARY.md")
        .collect();
    assert_eq!(listed, chapters);
}

#[test]
fn every_command_of_the_workspace_in_the_documentation_parses() {
    let root = cargo::workspace_root();
    let pages = blocks::pages(&root);
    let commands = pages.iter().flat_map(|page| blocks::commands(page));
    let mut found = 0;
    for command in
        commands.filter(|command| command.words.starts_with(&["cargo".into(), "xtask".into()]))
    {
        let words = [&["cargo xtask".to_owned()], &command.words[2..]].concat();
        if let Err(error) = Cli::try_parse_from(words)
            && error.use_stderr()
            // A command may be spoken of without what it needs.
            && !(command.words.len() == 3 && error.kind() == ErrorKind::MissingRequiredArgument)
        {
            panic!("{}: {}\n{error}", command.place, command.words.join(" "));
        }
        found += 1;
    }
    assert!(found > 10, "only {found} commands were found");
}

#[test]
fn every_key_that_the_documentation_sets_exists() {
    let root = cargo::workspace_root();
    let keys = keys::all(&root).unwrap();
    let exists = |name: &str| keys.iter().any(|key| key.name == name);
    for page in blocks::pages(&root) {
        let text = read(&page);
        let lines = text.lines().enumerate();
        // The troubleshooting shows what is said of a key that does not exist.
        for (number, line) in lines.filter(|(_, line)| !line.starts_with("error:")) {
            let set = line
                .split("set ")
                .skip(1)
                .map(|rest| rest.trim_start_matches('\''));
            for (name, _) in set.filter_map(|rest| rest.split_once('=')) {
                let is_letter = |c: char| c.is_ascii_lowercase() || "._".contains(c);
                let is_key = !name.is_empty() && name.chars().all(is_letter);
                assert!(
                    !is_key || exists(name),
                    "{}:{}: there is no key {name}",
                    page.display(),
                    number + 1
                );
            }
        }
    }
}

/// The length of a phrase that is looked for; half of them may hold values.
const WORDS: usize = 4;

#[test]
fn the_messages_that_the_troubleshooting_quotes_are_those_of_the_sources() {
    fn add(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                add(&path, all);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                all.push_str(&read(&path));
            }
        }
    }
    let root = cargo::workspace_root();
    let mut sources = String::new();
    for name in ["mae-data", "mae-model", "mae-train"] {
        add(&root.join("crates").join(name).join("src"), &mut sources);
    }
    // A string may go on after a backslash.
    let parts: Vec<&str> = sources.split("\\\n").collect();
    let sources: String = parts.iter().map(|part| part.trim_start()).collect();

    let page = read(&root.join("docs/book/src/troubleshooting.md"));
    let quotes = page.split("```text\n").skip(1);
    for quote in quotes.filter_map(|rest| rest.split("\n```").next()) {
        // The system's words are not ours.
        let quote = quote.replace("No such file or directory (os error 2)", "");
        // What a value stands in is one of these words, and no part of a run.
        let is_value = |word: &str| {
            word == "NaN"
                || word.ends_with([':', ';', ','])
                || word.contains(|c: char| c.is_ascii_digit() || "`\"/=".contains(c))
        };
        let words: Vec<&str> = quote.split_whitespace().collect();
        let runs = words
            .split(|word| is_value(word))
            .filter(|run| run.len() >= WORDS);
        let known = runs.flat_map(|run| run.windows(WORDS).map(|words| words.join(" ")));
        let (mut found, mut missing) = (0, Vec::new());
        for words in known {
            match sources.contains(&words) {
                true => found += 1,
                false => missing.push(words),
            }
        }
        assert!(
            found >= missing.len(),
            "no message: {quote}\nnot in the sources: {missing:?}"
        );
    }
}
