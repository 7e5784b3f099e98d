//! The configurations that come with the program.

use anyhow::{Result, anyhow};

/// An embedded configuration.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// What `--recipe` takes.
    pub name: &'static str,
    /// The TOML file, which begins with comments: what it is for, its command, time and expected result.
    pub text: &'static str,
}

impl Recipe {
    /// The first line of the recipe's comments.
    pub fn summary(&self) -> &'static str {
        self.text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches('#')
            .trim()
    }
}

macro_rules! recipes {
    ($($name:literal),+ $(,)?) => {
        &[$(Recipe { name: $name, text: include_str!(concat!("../../recipes/", $name, ".toml")) }),+]
    };
}

/// Recipes of pre-training, small ones first.
pub const PRETRAIN: &[Recipe] = recipes![
    "quickstart",
    "cifar10",
    "imagenet_vit_b16",
    "imagenet_vit_l16",
    "imagenet_vit_h14"
];

/// Recipes of a tokenizer.
pub const TOKENIZER: &[Recipe] = recipes!["tokenizer"];

/// Recipes of evaluation, small ones first.
pub const EVAL: &[Recipe] = recipes![
    "finetune_cifar10",
    "finetune_vit_b",
    "finetune_vit_l",
    "finetune_vit_h"
];

/// The recipe of that name.
///
/// # Errors
/// With the names that exist, if there is none.
pub fn find<'a>(recipes: &'a [Recipe], name: &str) -> Result<&'a Recipe> {
    let is_it = |recipe: &&Recipe| recipe.name == name;
    recipes.iter().find(is_it).ok_or_else(|| {
        let names: Vec<&str> = recipes.iter().map(|recipe| recipe.name).collect();
        let kinds = [
            (PRETRAIN, "pretrain"),
            (TOKENIZER, "tokenizer"),
            (EVAL, "eval"),
        ];
        let of = kinds
            .iter()
            .find(|(all, _)| all.iter().any(|recipe| is_it(&recipe)));
        let problem = match of {
            Some((_, command)) => format!("the recipe {name:?} is of `mae-train {command}`"),
            None => format!("there is no recipe {name:?}"),
        };
        anyhow!("{problem}; expected one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_of_another_command_is_told_from_one_that_is_not_there() {
        let refusal = |name: &str| find(EVAL, name).unwrap_err().to_string();
        let other = refusal("quickstart");
        assert!(
            other.starts_with("the recipe \"quickstart\" is of `mae-train pretrain`; expected one of finetune_cifar10,"),
            "{other}"
        );
        assert!(refusal("quick").starts_with("there is no recipe \"quick\""));
    }
}
