//! Why work ended without its result.

use mae_data::DataError;
use mae_model::ModelError;

/// Why [`pretrain`](crate::pretrain::pretrain()), [`train_tokenizer`](crate::tokenizer::train_tokenizer),
/// [`evaluate`](crate::eval::evaluate), [`embed`](crate::embed::embed()) or
/// [`Exported`](crate::export::Exported) ended without a result.
///
/// Each holds the whole story, as `{error:#}` prints it: the file or key, what was expected, what was found, and the
/// remedy. A signal is no error: they then return how far they came, or `None`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Losses or gradients were not finite for too long.
    #[error(transparent)]
    Diverged(anyhow::Error),
    /// Another process of the run is gone, or did not come in time.
    #[error(transparent)]
    Lost(anyhow::Error),
    /// Images cannot be read, or do not fit the settings.
    #[error(transparent)]
    Data(anyhow::Error),
    /// Weights cannot be read or written, or do not fit the settings.
    #[error(transparent)]
    Model(anyhow::Error),
    /// Anything else: a setting, a file of the run, the device.
    #[error(transparent)]
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        fn has<T: std::error::Error + 'static>(error: &anyhow::Error) -> bool {
            error.chain().any(|cause| cause.is::<T>())
        }
        let kind = match () {
            () if has::<Diverged>(&error) => Self::Diverged,
            () if has::<Lost>(&error) => Self::Lost,
            () if has::<DataError>(&error) => Self::Data,
            () if has::<ModelError>(&error) => Self::Model,
            () => Self::Other,
        };
        kind(error)
    }
}

/// Work ended that a signal stopped.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("stopped by a signal")]
pub struct Stopped;

/// Training that does not go on, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Diverged(pub String);

/// Another process is gone, or did not come in time, in Gloo's words.
#[derive(Debug, thiserror::Error)]
#[error("the processes of this run have lost each other: {0}")]
pub struct Lost(String);

impl Lost {
    /// Whether that is why `error` came about.
    pub fn caused(error: &anyhow::Error) -> bool {
        let is_lost = matches!(error.downcast_ref(), Some(Error::Lost(_)));
        is_lost || error.chain().any(|cause| cause.is::<Self>())
    }

    /// Gloo begins with the place in its source, and ends with good wishes.
    fn without_ornaments(words: &str) -> Self {
        let words = words.split_once("] ").map_or(words, |(_, words)| words);
        let words = words.split(". This is typically").next().unwrap_or(words);
        Self(words.to_owned())
    }
}

impl From<torch_ext::Error> for Lost {
    fn from(error: torch_ext::Error) -> Self {
        Self::without_ornaments(&error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn an_error_tells_its_kind_and_the_whole_story() {
        let diverged = || anyhow!(Diverged("no number".into())).context("fine-tuning");
        let error = Error::from(diverged());
        assert!(matches!(error, Error::Diverged(_)), "{error:?}");
        assert_eq!(format!("{error:#}"), "fine-tuning: no number");
        // And again, where a program adds to it.
        let said = Err::<(), _>(error).context("cell 3").unwrap_err();
        assert_eq!(format!("{said:#}"), "cell 3: fine-tuning: no number");

        let other = Error::from(anyhow!("no such key"));
        assert!(matches!(other, Error::Other(_)), "{other:?}");
    }

    #[test]
    fn a_lost_process_is_known_behind_any_words() {
        let lost = || {
            anyhow!(Lost::without_ornaments(
                "[gloo.cc:1] timed out. This is typically bad"
            ))
        };
        assert_eq!(
            lost().to_string(),
            "the processes of this run have lost each other: timed out"
        );
        assert!(Lost::caused(&lost()));
        assert!(Lost::caused(&lost().context("in epoch 3")));
        assert!(Lost::caused(&anyhow!(Error::from(lost()))));
        assert!(!Lost::caused(&anyhow!(Stopped)));
    }
}
