//! The chapter of every key, from the documentation of the fields that the keys are read into.
//!
//! The sources are read as text, for a program that knew them would need libtorch.
//! rustfmt keeps them in the form that is read here: one field a line, its documentation above it.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};

/// Where the chapter is.
pub const CHAPTER: &str = "docs/book/src/keys.md";

/// The files in which the structures are.
const SOURCES: &[&str] = &[
    "crates/mae-train/src/config.rs",
    "crates/mae-train/src/config/data.rs",
    "crates/mae-train/src/eval/config.rs",
    "crates/mae-train/src/tokenizer/config.rs",
    "crates/mae-data/src/color_jitter.rs",
];

/// What each kind of configuration is read into.
const KINDS: &[Kind] = &[
    Kind {
        title: "Pre-training",
        words: "Of `mae-train pretrain`, `doctor` and `plan`, and of `--set` of `cargo xtask ablate`.",
        recipe: "quickstart",
        root: "TrainConfig",
    },
    Kind {
        title: "Evaluation",
        words: "Of `mae-train eval`, and of `--eval-set` of `cargo xtask ablate`.",
        recipe: "finetune_cifar10",
        root: "EvalConfig",
    },
    Kind {
        title: "Tokenizers",
        words: "Of `mae-train tokenizer`.",
        recipe: "tokenizer",
        root: "TokenizerTraining",
    },
];

struct Kind {
    title: &'static str,
    words: &'static str,
    recipe: &'static str,
    root: &'static str,
}

/// One key of a configuration.
#[derive(Debug, PartialEq)]
pub struct Key {
    /// Its name, as `--set` takes it.
    pub name: String,
    /// Its default, in words; `None` if it is absent unless given.
    pub default: Option<String>,
    /// Unit, meaning and what it can be.
    pub meaning: String,
    /// The number or truth value of its `impl Default`, if it has one.
    pub literal: Option<String>,
}

/// The chapter.
///
/// # Errors
/// If a source cannot be read, or a key's documentation does not say its default.
pub fn chapter(root: &Path) -> Result<String> {
    let structures = structures(root)?;
    let mut page = String::from(
        "# Every key\n\n<!-- Written by `cargo xtask docs` from the documentation of the sources: change those. -->\n\n\
         A configuration is a TOML file of sections and keys.\n\
         `optim.epochs` is the key `epochs` of the section `[optim]`.\n\
         `--set optim.epochs=20` changes it for one command, and a key that does not exist is refused.\n\
         A default of \u{2013} means that the key is absent unless you give it.\n\
         Recipes have values of their own: `mae-train config --recipe NAME` prints all of them.\n",
    );
    for kind in KINDS {
        write!(page, "\n## {}\n\n{}\n", kind.title, kind.words)?;
        writeln!(
            page,
            "`mae-train config --recipe {}` prints such a file.",
            kind.recipe
        )?;
        for (heading, keys) in sections(&structures, kind.root)? {
            if let Some(heading) = heading {
                write!(page, "\n### {heading}\n")?;
            }
            page.push_str("\n<div class=\"keys\">\n\n| key | default | meaning |\n|---|---|---|\n");
            for key in keys {
                let default = key.default.as_deref().unwrap_or("\u{2013}");
                writeln!(
                    page,
                    "| `{}` | {} | {} |",
                    key.name,
                    cell(default),
                    cell(&key.meaning)
                )?;
            }
            page.push_str("\n</div>\n");
        }
    }
    Ok(page)
}

/// Every key of every kind of configuration.
///
/// # Errors
/// As [`chapter`].
#[cfg(test)]
pub fn all(root: &Path) -> Result<Vec<Key>> {
    let structures = structures(root)?;
    let mut all = Vec::new();
    for kind in KINDS {
        all.extend(
            sections(&structures, kind.root)?
                .into_iter()
                .flat_map(|(_, keys)| keys),
        );
    }
    Ok(all)
}

/// A structure of the sources.
#[derive(Debug, Default)]
struct Structure {
    documentation: String,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    name: String,
    kind: String,
    documentation: String,
    literal: Option<String>,
}

fn structures(root: &Path) -> Result<BTreeMap<String, Structure>> {
    let mut all = BTreeMap::new();
    for source in SOURCES {
        let path = root.join(source);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        read(&text, &mut all);
    }
    Ok(all)
}

/// Adds the public structures of a source, and the literals of their `impl Default`.
fn read(source: &str, all: &mut BTreeMap<String, Structure>) {
    let mut documentation = String::new();
    let mut structure: Option<String> = None;
    let mut default: Option<String> = None;
    for line in source.lines() {
        let words = line.trim();
        if line == "}" {
            (structure, default) = (None, None);
        }
        if let Some(more) = words.strip_prefix("///") {
            // What follows an empty line is for programmers.
            let text = match more.trim() {
                "" => "\n",
                text => text,
            };
            documentation = format!("{documentation} {text}");
        } else if let Some(name) = line
            .strip_prefix("pub struct ")
            .and_then(|rest| rest.strip_suffix(" {"))
        {
            let documentation = first_paragraph(&documentation);
            let fields = Vec::new();
            all.insert(
                name.into(),
                Structure {
                    documentation,
                    fields,
                },
            );
            structure = Some(name.into());
        } else if let Some((name, kind)) = field(words)
            && let Some(structure) = structure.as_ref().and_then(|name| all.get_mut(name))
        {
            structure.fields.push(Field {
                name: name.into(),
                kind: kind.into(),
                documentation: first_paragraph(&documentation),
                literal: None,
            });
        } else if let Some(rest) = line.strip_prefix("impl Default for ") {
            default = Some(rest.trim_end_matches([' ', '{']).into());
        } else if let Some((name, value)) = words
            .strip_suffix(',')
            .and_then(|line| line.split_once(": "))
            && let Some(structure) = default.as_ref().and_then(|name| all.get_mut(name))
            && let Some(field) = structure.fields.iter_mut().find(|field| field.name == name)
            && (value.parse::<f64>().is_ok() || value.parse::<bool>().is_ok())
        {
            field.literal = Some(value.into());
        }
        if !words.starts_with("///") && !words.starts_with("#[") {
            documentation.clear();
        }
    }
}

/// Name and type of a line that declares a public field.
fn field(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("pub ")?
        .strip_suffix(',')?
        .split_once(": ")
}

fn first_paragraph(documentation: &str) -> String {
    let paragraph = documentation.split('\n').next().unwrap_or_default();
    paragraph.trim().into()
}

type Section = (Option<String>, Vec<Key>);

/// The sections of a configuration: what stands above them, and their keys.
fn sections(structures: &BTreeMap<String, Structure>, root: &str) -> Result<Vec<Section>> {
    let find = |name: &str| {
        structures
            .get(name)
            .with_context(|| format!("there is no structure {name} in the sources"))
    };
    let (mut first, mut sections) = (Vec::new(), Vec::new());
    for field in &find(root)?.fields {
        let Some(section) = structures.get(&field.kind) else {
            first.push(key("", field)?);
            continue;
        };
        let mut keys = Vec::new();
        for inner in &section.fields {
            keys.push(key(&field.name, inner)?);
            // The keys of a table that is absent unless given.
            let optional = inner.kind.strip_prefix("Option<");
            let table = optional.and_then(|kind| structures.get(kind.trim_end_matches('>')));
            for inmost in table.iter().flat_map(|table| &table.fields) {
                keys.push(key(&format!("{}.{}", field.name, inner.name), inmost)?);
            }
        }
        let words = section.documentation.split_once("]`: ");
        let words = words.map_or(field.documentation.as_str(), |(_, words)| words);
        let words = words.split(". ").next().unwrap_or(words);
        let heading = format!("`[{}]`: {}", field.name, words.trim_end_matches('.'));
        sections.push((Some(heading), keys));
    }
    if !first.is_empty() {
        sections.insert(0, (None, first));
    }
    Ok(sections)
}

fn key(section: &str, field: &Field) -> Result<Key> {
    let name = match section {
        "" => field.name.clone(),
        section => format!("{section}.{}", field.name),
    };
    let (default, meaning) = default_of(&field.documentation);
    ensure!(!meaning.is_empty(), "`{name}` has no documentation");
    if default.is_none() && !field.kind.starts_with("Option<") {
        bail!(
            "the documentation of `{name}` does not say its default: \"{meaning}\"; end it with \"Default X.\""
        );
    }
    Ok(Key {
        name,
        default,
        meaning,
        literal: field.literal.clone(),
    })
}

/// What a documentation says is the default, and the rest: a sentence "Default X." of its own, which the rest lacks,
/// or `X, the default`.
fn default_of(documentation: &str) -> (Option<String>, String) {
    let starts = ["Default: ", "Default "];
    for start in starts {
        let Some((before, after)) = documentation.split_once(start) else {
            continue;
        };
        let (default, rest) = after.split_once(". ").unwrap_or((after, ""));
        let default = default.trim_end_matches('.').into();
        let meaning = format!("{} {rest}", before.trim()).trim().into();
        return (Some(default), meaning);
    }
    let before = documentation.split_once(", the default");
    let default = before.and_then(|(before, _)| before.split(' ').next_back());
    (default.map(Into::into), documentation.into())
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(documentation: &str, default: Option<&str>, meaning: &str) {
        let expect = (default.map(Into::into), meaning.into());
        assert_eq!(default_of(documentation), expect);
    }

    #[test]
    fn a_default_is_a_sentence_of_its_own_or_in_the_middle() {
        check("Passes. Default 0.05.", Some("0.05"), "Passes.");
        check("A. Default: as B; else C.", Some("as B; else C"), "A.");
        check("A. Default 1. It is B.", Some("1"), "A. It is B.");
        check(
            "`a`, the default, or `b`.",
            Some("`a`"),
            "`a`, the default, or `b`.",
        );
        check("Image height, pixels.", None, "Image height, pixels.");
    }

    #[test]
    fn a_key_without_a_default_is_refused() {
        let source = "/// A.\npub struct A {\n    /// Of B.\n    pub b: u64,\n}\n";
        let mut all = BTreeMap::new();
        read(source, &mut all);
        let error = sections(&all, "A").unwrap_err().to_string();
        assert!(error.contains("`b` does not say its default"), "{error}");
    }
}
