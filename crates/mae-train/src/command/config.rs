//! `mae-train config`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use mae_train::config::recipes::{self, Recipe};
use mae_train::config::{MaskedAutoencoding, Source, read_as};
use mae_train::eval::config::EvalConfig;
use mae_train::tokenizer::config::DiscreteAutoencoding;

use super::run::TrainingArgs;
use super::write_stdout;

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train config                                        the quickstart's
  mae-train config --recipe cifar10 --data DIR > my.toml  a file to start from: mae-train --config my.toml
  mae-train config --config my.toml --set optim.epochs=20
  mae-train config --recipe finetune_cifar10              of an evaluation";

/// What to train on and how.
#[derive(Args)]
pub struct ConfigArgs {
    #[command(flatten)]
    training: TrainingArgs,
}

impl ConfigArgs {
    /// Prints it.
    pub fn run(&self) -> Result<ExitCode> {
        let config = self.to_toml()?;
        write_stdout(|out| out.write_all(config.as_bytes()))
    }

    /// The complete configuration of what the recipe is for; of pre-training without a recipe.
    fn to_toml(&self) -> Result<String> {
        let training = &self.training;
        let is_of = |recipes: &[Recipe]| {
            let name = training.recipe.as_deref();
            recipes.iter().any(|recipe| Some(recipe.name) == name)
        };
        if is_of(recipes::TOKENIZER) {
            return Ok(training.resolve::<DiscreteAutoencoding>()?.to_toml());
        }
        match &training.recipe {
            Some(name) if is_of(recipes::EVAL) => {
                let source = Source::Recipe(name.clone());
                let mut config: EvalConfig =
                    read_as(&source, recipes::EVAL, &training.set, |_| Ok(()))?;
                config.resolve()?;
                Ok(config.to_toml())
            }
            _ => Ok(training.resolve::<MaskedAutoencoding>()?.to_toml()),
        }
    }
}
