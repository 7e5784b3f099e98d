//! A study of the user's own, from a TOML file.
//!
//! ```toml
//! name = "patch-size"
//! title = "Patch size"
//! question = "How small should patches be?"
//!
//! # Every combination of these values ...
//! [grid]
//! "model.patch_size" = [4, 8]
//! "optim.base_lr" = [1e-3, 2e-3]
//!
//! # ... and these, each by itself.
//! [[cell]]
//! label = "one block"
//! set = { "model.decoder_depth" = 1 }
//! ```

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use toml::{Table, Value};

use super::study::{Study, Variant};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Letters, digits and hyphens. Default: the file's name.
    name: Option<String>,
    title: Option<String>,
    #[serde(default)]
    question: String,
    axis: Option<String>,
    #[serde(default)]
    grid: Table,
    #[serde(default)]
    cell: Vec<Cell>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cell {
    label: String,
    set: Table,
}

/// Reads the study in `path`.
///
/// # Errors
/// With the file and the key that is wrong.
pub fn read(path: &Path) -> Result<Study> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    parse(&text, &stem).with_context(|| path.display().to_string())
}

fn parse(text: &str, stem: &str) -> Result<Study> {
    let file: File = toml::from_str(text)?;
    let name = file.name.unwrap_or_else(|| stem.to_string());
    ensure!(
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
        "`name` is {name:?}, expected letters, digits and hyphens"
    );
    ensure!(
        !file.grid.is_empty() || !file.cell.is_empty(),
        "there is nothing to compare: expected a section [grid] with lists of values, or [[cell]] with `label` and `set`"
    );
    let mut variants = product(&file.grid)?;
    // One key of numbers is an axis.
    let numeric = file.cell.is_empty()
        && file.grid.len() == 1
        && variants.iter().all(|variant| variant.number.is_some());
    let axis = match file.grid.keys().next() {
        Some(key) if file.grid.len() == 1 => key.clone(),
        _ => "cell".into(),
    };
    for cell in &file.cell {
        ensure!(
            !cell.set.is_empty(),
            "the cell {:?} sets nothing",
            cell.label
        );
        variants.push(Variant {
            label: cell.label.clone(),
            set: (cell.set.iter())
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
            ..Variant::default()
        });
    }
    for (i, variant) in variants.iter().enumerate() {
        ensure!(
            variants[..i]
                .iter()
                .all(|other| other.label != variant.label),
            "two cells are called {:?}",
            variant.label
        );
    }
    Ok(Study {
        title: file.title.unwrap_or_else(|| name.clone()),
        name,
        panel: None,
        question: file.question,
        axis: file.axis.unwrap_or(axis),
        numeric,
        rule: None,
        loss_comparable: false,
        reference: 0,
        paper: None,
        variants,
    })
}

/// Every combination of the grid's values, the last key's changing fastest.
fn product(grid: &Table) -> Result<Vec<Variant>> {
    if grid.is_empty() {
        return Ok(Vec::new());
    }
    let mut combinations: Vec<Vec<(&str, &Value)>> = vec![Vec::new()];
    for (key, values) in grid {
        let values = (values.as_array())
            .filter(|values| !values.is_empty())
            .with_context(|| format!("`grid.{key}` is {values}, expected a list of values"))?;
        combinations = (combinations.iter())
            .flat_map(|combination| {
                values.iter().map(move |value| {
                    let mut longer = combination.clone();
                    longer.push((key, value));
                    longer
                })
            })
            .collect();
    }
    let is_single = grid.len() == 1;
    Ok((combinations.iter())
        .map(|combination| Variant {
            label: (combination.iter())
                .map(|(key, value)| match is_single {
                    true => bare(value),
                    false => format!("{}={}", key.rsplit('.').next().unwrap_or(key), bare(value)),
                })
                .collect::<Vec<_>>()
                .join(", "),
            number: match combination[..] {
                [(_, value)] => {
                    (value.as_float()).or(value.as_integer().map(|number| number as f64))
                }
                _ => None,
            },
            set: (combination.iter())
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
            ..Variant::default()
        })
        .collect())
}

/// A value without the quotation marks of a string.
fn bare(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_string(),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_every_combination_and_cells_stand_for_themselves() {
        let study = parse(
            r#"
            [grid]
            "model.patch_size" = [4, 8]
            "mask.sampler" = ["random", "block"]

            [[cell]]
            label = "shallow"
            set = { "model.decoder_depth" = 1, "data.color_jitter" = {} }
            "#,
            "mine",
        )
        .unwrap();
        assert_eq!((study.name.as_str(), study.numeric), ("mine", false));
        let cells: Vec<_> = (study.variants.iter())
            .map(|variant| (variant.label.as_str(), variant.set.join(" ")))
            .collect();
        let expect = [
            (
                "sampler=random, patch_size=4",
                "mask.sampler=\"random\" model.patch_size=4",
            ),
            (
                "sampler=random, patch_size=8",
                "mask.sampler=\"random\" model.patch_size=8",
            ),
            (
                "sampler=block, patch_size=4",
                "mask.sampler=\"block\" model.patch_size=4",
            ),
            (
                "sampler=block, patch_size=8",
                "mask.sampler=\"block\" model.patch_size=8",
            ),
            ("shallow", "data.color_jitter={} model.decoder_depth=1"),
        ];
        let expect: Vec<_> = (expect.iter())
            .map(|(label, set)| (*label, set.to_string()))
            .collect();
        assert_eq!(cells, expect);
    }

    #[test]
    fn one_key_of_numbers_is_an_axis() {
        let study = parse("[grid]\n\"optim.base_lr\" = [1e-3, 2e-3]", "lr").unwrap();
        assert!(study.numeric);
        assert_eq!(study.axis, "optim.base_lr");
        assert_eq!(study.variants[1].number, Some(2e-3));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, expect: &str| {
            let message = format!("{:#}", parse(text, "mine").unwrap_err());
            assert!(message.contains(expect), "{message}");
        };
        check("", "nothing to compare");
        check("[grid]\n\"a.b\" = 4", "`grid.a.b` is 4, expected a list");
        check("[grid]\n\"a.b\" = []", "expected a list");
        check("[gird]\na = [1]", "unknown field `gird`");
        check("name = \"a/b\"\n[grid]\na = [1]", "`name` is \"a/b\"");
        check("[grid]\na = [1, 1]", "two cells are called \"1\"");
        check("[[cell]]\nlabel = \"x\"\nset = {}", "sets nothing");
    }
}
