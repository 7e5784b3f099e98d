//! The training step: images in memory to moved weights, in f32 on the CPU.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    measure::{Competition, Entry, Role, Suite},
    python::Python,
};
use crate::setup;
use crate::{
    built::{self, Target},
    process::Interrupt,
};

/// Ours, and the peers if there is a Python for them, in every configuration of `benches/steps.json`.
pub fn suite(root: &Path, peers: Option<&Python>, interrupt: &Interrupt) -> Result<Suite> {
    let path = root.join("benches/steps.json");
    let configurations: BTreeMap<String, Value> = fs::read_to_string(&path)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(serde_json::from_str(&text)?))
        .with_context(|| format!("cannot read {}", path.display()))?;
    let program = built::build(
        root,
        Target::Example("mae-train", "train_step"),
        setup::ensure()?,
        interrupt,
    )?;

    let mut groups: Vec<Competition> = configurations
        .iter()
        .map(|(name, configuration)| {
            let options = format!("--config {name}");
            let ours = Entry::new("mae-rs", Role::Ours, program.clone())
                .options(&options)
                .shown(format!(
                    "cargo run --release -p mae-train --example train_step -- {options}"
                ));
            let mut entries = vec![ours];
            if let Some(python) = peers {
                let script = "step_huggingface.py";
                for (peer, options) in [
                    ("Hugging Face", options.clone()),
                    ("Hugging Face, torch.compile", options + " --compile"),
                ] {
                    entries.push(
                        python
                            .entry(root, peer, script)
                            .options(&options)
                            .shown(format!("python benches/peers/{script} {options}")),
                    );
                }
            }
            Competition {
                title: format!("{name}, batches of {}", configuration["batch_size"]),
                entries,
            }
        })
        .collect();
    if let Some(python) = peers {
        let script = "sgemm.py";
        groups.push(Competition {
            title: "matrix product".to_string(),
            entries: vec![
                python
                    .entry(root, "torch.matmul", script)
                    .shown(format!("python benches/peers/{script}")),
            ],
        });
    }
    Ok(Suite {
        notes: vec![
            "A step is normalising u8 images, masking 75 % of their patches, forward, backward and AdamW, \
             in f32 with as many threads as PyTorch takes by itself; ours also computes the gradient's norm."
                .to_string(),
            "Of peak: the operations that the model needs (three times those of the matrix products of the \
             forward pass, `MaeConfig::flops`) per second, over those of the fastest matrix products that any \
             of the systems reached in the run."
                .to_string(),
            "Peers run as their packages come; ours has jemalloc, as the program has.".to_string(),
        ],
        groups,
    })
}
