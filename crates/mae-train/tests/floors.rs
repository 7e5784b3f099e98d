//! The floors of the crate: a module uses those below it alone.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// From the ground up; modules of one floor do not use each other. The program is above them.
const FLOORS: &[&[&str]] = &[
    &["device", "error", "picture"],
    &["run"],
    &["distributed"],
    &["train"],
    &["config"],
    &["data"],
    &["train_loop"],
    &["eval", "reconstruct", "attend", "export"],
    &["rows"],
    &["embed", "predict"],
    &["pretrain", "tokenizer"],
    &["doctor", "inspect"],
];

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn sources(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            all.push(path);
        }
    }
}

/// The modules that a file names behind `crate::`, outside of comments and of its tests.
fn used(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let name = |rest: &str| -> String {
        let is_letter = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        rest.trim_start().chars().take_while(is_letter).collect()
    };
    let mut names = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            names.push(name(rest));
            continue;
        };
        let mut depth = 1;
        names.push(name(group));
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => names.push(name(&group[at + 1..])),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn every_module_uses_lower_floors_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let (mut arrows, mut up) = (0, Vec::new());
    for file in files {
        let path = file.strip_prefix(&root).unwrap();
        let own = path.iter().next().unwrap().to_str().unwrap();
        let own = own.trim_end_matches(".rs");
        // The program, and the list of modules.
        if ["lib", "main", "command", "allocator"].contains(&own) {
            continue;
        }
        let floor = floor_of(own).unwrap_or_else(|| panic!("{own} is on no floor"));
        for other in used(&fs::read_to_string(&file).unwrap()) {
            let Some(below) = floor_of(&other) else {
                panic!("{}: {other} is on no floor", path.display())
            };
            if other != own {
                arrows += 1;
                if below >= floor {
                    up.push(format!("{} uses {other}", path.display()));
                }
            }
        }
    }
    assert!(up.is_empty(), "{up:#?}");
    assert!(arrows > 100, "only {arrows} uses were found");
}
