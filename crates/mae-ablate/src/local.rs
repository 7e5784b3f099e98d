//! Cells as child processes on this machine, some at a time.

use std::{env, path::Path, process::Command, sync::Mutex, thread};

use anyhow::Result;

use super::{
    cell::{self, Folder, Outcome, Slot},
    display::Display,
    plan::{Cell, Plan},
};
use crate::interrupt::Interrupt;

/// The cells that failed, with the reason; and whether all were tried.
pub struct Ended {
    pub failed: Vec<(String, String)>,
    pub interrupted: bool,
}

/// The graphics processors that cells may be given, as `CUDA_VISIBLE_DEVICES` names them.
pub fn gpus() -> Vec<String> {
    let listed = match env::var("CUDA_VISIBLE_DEVICES") {
        Ok(devices) => devices.split(',').map(str::to_string).collect(),
        Err(_) => {
            let listing = Command::new("nvidia-smi").arg("-L").output();
            let text = listing.map(|output| output.stdout).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let count = text.lines().filter(|line| line.starts_with("GPU ")).count();
            (0..count)
                .map(|index| index.to_string())
                .collect::<Vec<_>>()
        }
    };
    listed.into_iter().filter(|name| !name.is_empty()).collect()
}

/// What each of `jobs` cells may use at a time: the threads divided, the graphics processors dealt out.
pub fn slots(jobs: usize, gpus: &[String]) -> Vec<Slot> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (0..jobs)
        .map(|job| Slot {
            threads: (cores / jobs).max(1),
            gpu: (!gpus.is_empty()).then(|| gpus[job % gpus.len()].clone()),
        })
        .collect()
}

/// Runs the cells that are not finished, one for each of `slots` at a time.
///
/// After each, `report` is called. A cell that fails does not stop the others.
///
/// # Errors
/// If a cell's folder cannot be written, or the program cannot be started.
pub fn run(
    plan: &Plan,
    out: &Path,
    program: &Path,
    slots: &[Slot],
    interrupt: &Interrupt,
    report: impl Fn() -> Result<()> + Sync,
) -> Result<Ended> {
    let cells = plan.cells().len();
    let unfinished = plan.unfinished(out);
    let folder = |cell: &Cell| Folder::new(out, &cell.hash, &plan.settings);
    let display = Display::start(cells, cells - unfinished.len(), slots.len());
    let queue = Mutex::new(unfinished.iter());
    let ended = Mutex::new(Ended {
        failed: Vec::new(),
        interrupted: false,
    });
    let work = |slot: &Slot| -> Result<()> {
        while let Some(cell) = next(&queue) {
            if interrupt.is_pressed() {
                lock(&ended).interrupted = true;
                break;
            }
            let folder = folder(cell);
            let mut line = display.begin(&cell.name);
            let outcome = cell::run(
                cell,
                &folder,
                &plan.settings,
                program,
                slot,
                interrupt,
                |progress| {
                    line.show(&progress);
                },
            )?;
            match outcome {
                Outcome::Finished => line.end(false, "finished"),
                Outcome::Interrupted => {
                    lock(&ended).interrupted = true;
                    line.end(false, "stopped and saved");
                }
                Outcome::Failed(reason) => {
                    line.end(true, &format!("FAILED ({reason})"));
                    lock(&ended).failed.push((cell.name.clone(), reason));
                }
            }
            report()?;
        }
        Ok(())
    };
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let workers: Vec<_> = slots
            .iter()
            .map(|slot| scope.spawn(|| work(slot)))
            .collect();
        (workers.into_iter())
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| anyhow::bail!("a worker died"))
            })
            .collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    Ok(ended
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner()))
}

fn next<'a>(queue: &Mutex<impl Iterator<Item = &'a Cell>>) -> Option<&'a Cell> {
    lock(queue).next()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
