//! What an evaluation is of, kept in its folder so that it goes on without being told again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use mae_train::eval::config::EvalConfig;
use mae_train::eval::{Protocol, Start};
use mae_train::run::shell;
use serde::{Deserialize, Serialize};

use crate::command::begun::check_same;

/// The content of `eval.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The model.safetensors that is judged.
    pub weights: PathBuf,
    /// The images to learn from; absent for the run's own.
    pub data: Option<PathBuf>,
    /// The images to judge by; absent where they are held out, or CIFAR's.
    pub val: Option<PathBuf>,
    protocols: Vec<String>,
    starts: Vec<String>,
    /// The rest of the command line.
    pub config: EvalConfig,
}

impl Settings {
    pub fn new(
        weights: PathBuf,
        [data, val]: [Option<PathBuf>; 2],
        protocols: &[Protocol],
        starts: &[Start],
        config: EvalConfig,
    ) -> Self {
        Self {
            weights,
            data,
            val,
            protocols: protocols.iter().map(ToString::to_string).collect(),
            starts: starts.iter().map(|start| start.name().into()).collect(),
            config,
        }
    }

    /// Reads what [`write`](Self::write) left in `path`.
    pub fn read(text: &str, path: &Path) -> Result<Self> {
        toml::from_str(text).with_context(|| {
            let name = path.display();
            format!("{name} is damaged: give the whole command with another --out")
        })
    }

    pub fn protocols(&self) -> Result<Vec<Protocol>> {
        self.protocols.iter().map(|name| name.parse()).collect()
    }

    pub fn starts(&self) -> Result<Vec<Start>> {
        let known = [Start::Pretrained, Start::Random];
        let find = |name: &String| {
            let found = known.into_iter().find(|start| start.name() == name);
            found.ok_or_else(|| anyhow!("{name:?} is no start of an encoder"))
        };
        self.starts.iter().map(find).collect()
    }

    /// Goes on with what began as `begun` in `out`; adds its protocols and starts.
    ///
    /// Only `[run]` may differ, but for its precision, and where the images lie: which they are is compared by their
    /// list.
    pub fn continue_from(mut self, begun: &Self, out: &Path) -> Result<Self> {
        // The same place under another name.
        if let (Ok(here), Ok(there)) = (self.weights.canonicalize(), begun.weights.canonicalize())
            && here == there
        {
            self.weights.clone_from(&begun.weights);
        }
        for (all, own) in [
            (&begun.protocols, &mut self.protocols),
            (&begun.starts, &mut self.starts),
        ] {
            let new: Vec<String> = own.drain(..).filter(|name| !all.contains(name)).collect();
            own.extend(all.iter().cloned().chain(new));
        }
        let mut asked = self.clone();
        asked.config = asked.config.with_run_of(&begun.config);
        asked.protocols.clone_from(&begun.protocols);
        asked.starts.clone_from(&begun.starts);
        (asked.data, asked.val) = (begun.data.clone(), begun.val.clone());
        check_same("evaluation", &asked.to_toml(), &begun.to_toml(), out)?;
        Ok(self)
    }

    fn to_toml(&self) -> String {
        toml::to_string(self).expect("plain tables of numbers and strings")
    }

    /// Writes them, with the command that goes on.
    pub fn write(&self, path: &Path, out: &Path) -> Result<()> {
        let header = format!(
            "# Written by mae-train {}. Go on with: mae-train eval --resume --out {}\n\n",
            env!("CARGO_PKG_VERSION"),
            shell::word(out),
        );
        mae_report::write_atomic(path, (header + &self.to_toml()).as_bytes())?;
        Ok(())
    }
}
