//! The training step: images in memory to moved weights, on the CPU.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Precision,
    measure::{Competition, Entry, Role, Suite},
    python::Python,
};
use crate::setup;
use crate::{
    built::{self, Target},
    process::Interrupt,
};

/// Debian's and Ubuntu's jemalloc, which makes PyTorch faster on CPUs: package libjemalloc2.
const JEMALLOC: &str = "libjemalloc.so.2";

/// Ours, and the peers if there is a Python for them, in every configuration of `benches/steps.json`.
///
/// Where jemalloc is installed, peers are measured with it, too.
pub fn suite(
    root: &Path,
    precision: Precision,
    peers: Option<&Python>,
    interrupt: &Interrupt,
) -> Result<Suite> {
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

    let jemalloc = find_jemalloc();
    if peers.is_some() && jemalloc.is_none() {
        eprintln!(
            "without {JEMALLOC}, peers are measured without it alone: install libjemalloc2 for more"
        );
    }

    let mut groups: Vec<Competition> = configurations
        .iter()
        .map(|(name, configuration)| {
            let options = format!("--config {name} --precision {precision}");
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
                    let shown = format!("python benches/peers/{script} {options}");
                    let entry = |name: &str| python.entry(root, name, script).options(&options);
                    entries.push(entry(peer).shown(shown.clone()));
                    if let Some(library) = &jemalloc {
                        entries.push(
                            entry(&format!("{peer}, jemalloc"))
                                .shown(format!("LD_PRELOAD={JEMALLOC} {shown}"))
                                .environment("LD_PRELOAD", library),
                        );
                    }
                }
            }
            Competition {
                title: format!("{name}, batches of {}", configuration["batch_size"]),
                entries,
            }
        })
        .collect();
    if let Some(python) = peers {
        let script = "matmul.py";
        let options = format!("--precision {precision}");
        groups.push(Competition {
            title: "matrix product".to_string(),
            entries: vec![
                python
                    .entry(root, "torch.matmul", script)
                    .options(&options)
                    .shown(format!("python benches/peers/{script} {options}")),
            ],
        });
    }
    Ok(Suite {
        notes: vec![
            format!(
                "A step is normalising u8 images, masking 75 % of their patches, forward, backward and AdamW, \
                 in {precision} with as many threads as PyTorch takes by itself; ours also computes the gradient's norm."
            ),
            "Of peak: the operations that the model needs (three times those of the matrix products of the \
             forward pass, `MaeConfig::flops`) per second, over those of the fastest matrix products that any \
             of the systems reached in the run."
                .to_string(),
            "Peers run as their packages come, and with jemalloc where that is said; ours has it, as the program has."
                .to_string(),
        ],
        groups,
    })
}

/// Where the system keeps it.
fn find_jemalloc() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib")
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let folders = [PathBuf::from("/usr/lib"), "/usr/lib64".into()]
        .into_iter()
        .chain(folders);
    folders
        .map(|folder| folder.join(JEMALLOC))
        .find(|path| path.is_file())
}
