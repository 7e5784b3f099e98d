//! Cells as the tasks of one Slurm job array.
//!
//! `sbatch` gets a script whose task runs `mae-ablate cell`, this same program, on whatever node it lands.
//! The folder of the ablation must be on a file system that the nodes share.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{
    base::output,
    cell::{self, Folder, Outcome, Slot},
    plan::Plan,
};
use crate::{called_as, interrupt::Interrupt};

/// Seconds before its time limit at which a task is asked to save.
const GRACE: u32 = 120;

/// One cell of a submitted list.
#[derive(Args)]
pub struct Task {
    #[arg(long)]
    out: PathBuf,
    /// The hashes of the cells, one a line
    #[arg(long)]
    list: PathBuf,
    /// Which of them
    #[arg(long)]
    index: usize,
    /// mae-train
    #[arg(long)]
    program: PathBuf,
}

/// Submits the cells that are not finished, at most `jobs` at a time.
///
/// # Errors
/// If the script cannot be written or sbatch refuses it.
pub fn submit(
    plan: &Plan,
    out: &Path,
    program: &Path,
    jobs: Option<usize>,
    arguments: &[String],
) -> Result<ExitCode> {
    let out = &std::path::absolute(out)?;
    let hashes: Vec<String> = (plan.unfinished(out).into_iter())
        .map(|cell| cell.hash)
        .collect();
    if hashes.is_empty() {
        println!(
            "every cell is finished; the report: {} report --out {}",
            called_as(),
            out.display()
        );
        return Ok(ExitCode::SUCCESS);
    }
    // An array that still waits reads its own list, so each submission has a folder of its own.
    let folder = (1..)
        .map(|number| out.join("slurm").join(number.to_string()))
        .find(|folder| !folder.exists())
        .context("there is always another number")?;
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let list = folder.join("cells.txt");
    mae_report::write_atomic(&list, (hashes.join("\n") + "\n").as_bytes())?;
    let script = folder.join("array.sh");
    let text = script_text(hashes.len(), jobs, &folder, out, &list, program)?;
    mae_report::write_atomic(&script, text.as_bytes())?;

    let mut sbatch = Command::new("sbatch");
    sbatch.arg("--parsable").args(arguments).arg(&script);
    let answer = output(&mut sbatch).with_context(|| {
        format!(
            "sbatch did not take {}: see `sbatch --help`, and --sbatch for arguments",
            script.display()
        )
    })?;
    // `ID` or `ID;CLUSTER`.
    let id = answer.trim().split(';').next().unwrap_or_default();
    ensure!(
        !id.is_empty(),
        "sbatch did not say which job {} is",
        script.display()
    );
    println!(
        "submitted {} cells as job array {id}; its words are in {}",
        hashes.len(),
        folder.display()
    );
    println!("how far it is:   squeue --job {id}");
    println!(
        "when it is done: {} report --out {}",
        called_as(),
        out.display()
    );
    println!("cells that failed or were cancelled: the same command submits them again");
    Ok(ExitCode::SUCCESS)
}

fn script_text(
    cells: usize,
    jobs: Option<usize>,
    folder: &Path,
    out: &Path,
    list: &Path,
    program: &Path,
) -> Result<String> {
    let this = env::current_exe().context("finding this program")?;
    let limit = jobs.map_or_else(String::new, |jobs| format!("%{jobs}"));
    let [folder, out, list, program, this] =
        [folder, out, list, program, &this].map(|path| path.display().to_string());
    ensure!(
        !folder.contains(char::is_whitespace),
        "{folder}: #SBATCH lines cannot name a folder with spaces: give another --out"
    );
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    Ok(format!(
        r#"#!/bin/sh
#SBATCH --job-name=mae-ablate
#SBATCH --array=0-{last}{limit}
#SBATCH --output={folder}/%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{GRACE}

# Before its time limit a task is asked to save; then it goes back into the queue, and resumes.
# A cancelled task may save, too, but does not come back.
stop() {{
    kill -TERM "$cell"
    wait "$cell"
}}
trap 'stop; scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"; exit 143' USR1
trap 'stop; exit 143' TERM
{this} cell --out {out} --list {list} --program {program} --index "$SLURM_ARRAY_TASK_ID" &
cell=$!
wait "$cell"
"#,
        last = cells - 1,
        this = quoted(&this),
        out = quoted(&out),
        list = quoted(&list),
        program = quoted(&program),
    ))
}

/// Runs one cell of a list to its end.
///
/// # Errors
/// If there is no such cell, or it cannot be run.
pub fn run(task: &Task) -> Result<ExitCode> {
    let plan = Plan::open(&task.out)?
        .with_context(|| format!("{} holds no plan.json", task.out.display()))?;
    let list = fs::read_to_string(&task.list)
        .with_context(|| format!("reading {}", task.list.display()))?;
    let hash = (list.lines().nth(task.index))
        .with_context(|| format!("{} has no line {}", task.list.display(), task.index))?;
    let cell = (plan.cells().into_iter())
        .find(|cell| cell.hash == hash)
        .with_context(|| format!("the plan has no cell {hash}: it was changed since"))?;
    let slot = Slot {
        threads: env::var("SLURM_CPUS_PER_TASK")
            .ok()
            .and_then(|threads| threads.parse().ok())
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)),
        gpu: None,
    };
    let interrupt = Interrupt::catch()?;
    let folder = Folder::new(&task.out, &cell.hash, &plan.settings);
    println!("{}, in {}", cell.name, folder.path.display());
    let outcome = cell::run(
        &cell,
        &folder,
        &plan.settings,
        &task.program,
        &slot,
        &interrupt,
        |_| (),
    )?;
    Ok(match outcome {
        Outcome::Finished => {
            println!("finished");
            ExitCode::SUCCESS
        }
        Outcome::Interrupted => {
            println!("stopped and saved");
            ExitCode::from(143)
        }
        Outcome::Failed(reason) => {
            eprintln!("failed: {reason}");
            ExitCode::FAILURE
        }
    })
}
