//! `data.tokenizer`: what its file says of a tokenizer becomes part of the configuration.

use anyhow::{Context, Result, bail, ensure};
use mae_model::{Normalization, Target, TokenizerConfig, tokenizer};

use super::{DataSection, ModelSection, NormalizationSource};
use crate::run::checkpoint::find_model;

/// The tokenizer to predict tokens of, and its channel statistics where its file is there.
///
/// A run's own configuration has the tokenizer in it, for its checkpoints have: it needs no file any more.
///
/// # Errors
/// If there is a tokenizer and another target, or the reverse; if the file cannot be read or is another's.
pub fn find_tokenizer(
    model: &ModelSection,
    data: &DataSection,
) -> Result<Option<(TokenizerConfig, Option<Normalization>)>> {
    let is_target = model.target == Some(Target::Tokens);
    let Some(path) = &data.tokenizer else {
        ensure!(
            !is_target,
            "`model.target` is \"tokens\", but `data.tokenizer` is missing: \
             give a run of `mae-train tokenizer` with --set data.tokenizer=PATH"
        );
        ensure!(
            model.tokenizer.is_none(),
            "`model.tokenizer` is filled in from the file of `data.tokenizer`: leave it out"
        );
        return Ok(None);
    };
    ensure!(
        is_target,
        "`data.tokenizer` is {}, which has no effect unless model.target=tokens",
        path.display()
    );
    match &model.tokenizer {
        Some(own) if !path.exists() => Ok(Some((own.clone(), None))),
        own => {
            let file = find_model(path).context("`data.tokenizer`")?;
            let (found, normalization) =
                tokenizer::read_config(&file).context("`data.tokenizer`")?;
            ensure!(
                own.as_ref().is_none_or(|own| *own == found),
                "`model.tokenizer` is not what {} is: leave it out, or give the tokenizer that it describes",
                file.display()
            );
            Ok(Some((found, Some(normalization))))
        }
    }
}

impl DataSection {
    /// Takes the channel statistics of a tokenizer, for it sees the same numbers as the model.
    ///
    /// # Errors
    /// If others are asked for.
    pub(super) fn share_normalization(&mut self, of_tokenizer: Normalization) -> Result<()> {
        if self.normalization == NormalizationSource::Auto {
            self.normalization = NormalizationSource::Given;
            self.mean = Some(of_tokenizer.mean.to_vec());
            self.std = Some(of_tokenizer.std.to_vec());
        } else if self.normalization().as_ref() != Some(&of_tokenizer) {
            bail!(
                "`data.normalization` is not the tokenizer's, mean {:?} and std {:?}: \
                 set data.normalization=auto, which then takes these",
                of_tokenizer.mean,
                of_tokenizer.std
            );
        }
        Ok(())
    }
}
