//! `mae-train config`.

use anyhow::Result;
use clap::Args;
use mae_train::config::{RunConfig, Source, read_as};
use mae_train::eval::config::EvalConfig;
use mae_train::recipes::{self, Recipe};
use mae_train::tokenizer::config::TokenizerRun;

use super::run::TrainingArgs;

/// What to train on and how.
#[derive(Args)]
pub struct ConfigArgs {
    #[command(flatten)]
    training: TrainingArgs,
}

impl ConfigArgs {
    /// The complete configuration of what the recipe is for; of pre-training without a recipe.
    pub fn to_toml(&self) -> Result<String> {
        let training = &self.training;
        let is_of = |recipes: &[Recipe]| {
            let name = training.recipe.as_deref();
            recipes.iter().any(|recipe| Some(recipe.name) == name)
        };
        if is_of(recipes::TOKENIZER) {
            return Ok(training.resolve::<TokenizerRun>()?.to_toml());
        }
        match &training.recipe {
            Some(name) if is_of(recipes::EVAL) => {
                let source = Source::Recipe(name.clone());
                let mut config: EvalConfig =
                    read_as(&source, recipes::EVAL, &training.set, |_| Ok(()))?;
                config.resolve()?;
                Ok(config.to_toml())
            }
            _ => Ok(training.resolve::<RunConfig>()?.to_toml()),
        }
    }
}
