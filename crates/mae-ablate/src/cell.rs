//! One cell: its folder, and how it is pre-trained and judged.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use mae_report::Record;

use super::{
    base::{Settings, hash},
    plan::Cell,
};
use crate::interrupt::Interrupt;

/// How often a running cell is looked at.
const POLL: Duration = Duration::from_millis(200);

/// The folder of a cell, `OUT/cells/HASH`.
pub struct Folder {
    pub path: PathBuf,
    /// Its evaluation, which depends on more than the hash says.
    pub eval: PathBuf,
}

impl Folder {
    pub fn new(out: &Path, hash_of_config: &str, settings: &Settings) -> Self {
        let path = out.join("cells").join(hash_of_config);
        let eval = path.join(format!(
            "eval-{}",
            hash(&settings.eval_arguments().join("\n"))
        ));
        Self { path, eval }
    }

    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    pub fn run(&self) -> PathBuf {
        self.path.join("run")
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("log.txt")
    }

    /// There once the pre-training has ended well.
    fn pretrained(&self) -> PathBuf {
        self.path.join("pretrained")
    }

    /// The protocols that it has been judged by, one a line.
    fn judged(&self) -> PathBuf {
        self.eval.join("judged")
    }

    /// Why it failed, if it did.
    pub fn failed(&self) -> PathBuf {
        self.path.join("failed")
    }

    /// Whether pre-training and evaluation have ended well.
    pub fn is_finished(&self, cell: &Cell) -> bool {
        let judged = std::fs::read_to_string(self.judged()).unwrap_or_default();
        self.pretrained().exists()
            && (cell.protocols.iter()).all(|wanted| judged.lines().any(|line| line == wanted))
    }
}

/// How a cell ended.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Finished,
    Failed(String),
    Interrupted,
}

/// What a cell is doing.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Not a number yet.
    Starting,
    /// Another process has it.
    Waiting,
    Training {
        /// Of the whole pre-training, 0 to 1.
        share: f64,
        left: Duration,
        words: String,
    },
    Judging {
        protocols: String,
        since: Duration,
    },
}

/// What a cell may use of the machine.
#[derive(Clone, Debug)]
pub struct Slot {
    pub threads: usize,
    /// For `CUDA_VISIBLE_DEVICES`.
    pub gpu: Option<String>,
}

/// Pre-trains and judges a cell, from where an earlier attempt stopped.
///
/// # Errors
/// If its folder cannot be written or the program cannot be started; a cell that fails is an [`Outcome`].
pub fn run(
    cell: &Cell,
    folder: &Folder,
    settings: &Settings,
    program: &Path,
    slot: &Slot,
    interrupt: &Interrupt,
    mut show: impl FnMut(Progress),
) -> Result<Outcome> {
    if folder.failed().exists() {
        std::fs::remove_file(folder.failed())
            .with_context(|| format!("removing {}", folder.failed().display()))?;
    }
    let epochs = epochs(&folder.config())?;
    // A process that outlived the ablation that started it goes on with the cell: what it does need not be repeated.
    while is_taken(&folder.run()) && !interrupt.is_pressed() {
        show(Progress::Waiting);
        thread::sleep(10 * POLL);
    }
    if !folder.pretrained().exists() {
        let mut command = command(program, folder, slot);
        command.args(["pretrain", "--config"]).arg(folder.config());
        command.arg("--resume").arg("--out").arg(folder.run());
        command.args(["--set", &format!("run.workers={}", slot.threads)]);
        let ended = attend(command, folder, interrupt, || {
            show(training(&folder.run(), epochs));
        })?;
        if let Some(outcome) = outcome("pre-training", ended, folder, interrupt)? {
            return Ok(outcome);
        }
        mae_report::write_atomic(&folder.pretrained(), b"")?;
    }
    if !folder.is_finished(cell) {
        let started = Instant::now();
        let protocols = cell.protocols.join(",");
        let mut command = command(program, folder, slot);
        command.arg("eval").arg("--from").arg(folder.run());
        command.args(settings.eval_arguments());
        command.args(["--set", &format!("run.workers={}", slot.threads)]);
        command.args(["--protocols", &protocols]);
        command.arg("--resume").arg("--out").arg(&folder.eval);
        let ended = attend(command, folder, interrupt, || {
            show(Progress::Judging {
                protocols: protocols.clone(),
                since: started.elapsed(),
            });
        })?;
        if let Some(outcome) = outcome("evaluation", ended, folder, interrupt)? {
            return Ok(outcome);
        }
        mae_report::write_atomic(&folder.judged(), cell.protocols.join("\n").as_bytes())?;
        let features = folder.path.join("cache");
        if features.exists() {
            std::fs::remove_dir_all(&features)
                .with_context(|| format!("removing {}", features.display()))?;
        }
    }
    Ok(Outcome::Finished)
}

/// The program with a cell's share of the machine.
fn command(program: &Path, folder: &Folder, slot: &Slot) -> Command {
    let mut command = Command::new(program);
    command.env("OMP_NUM_THREADS", slot.threads.to_string());
    command.env("RAYON_NUM_THREADS", slot.threads.to_string());
    // Features that no other cell can use.
    command.env("MAE_CACHE_DIR", folder.path.join("cache"));
    if let Some(gpu) = &slot.gpu {
        command.env("CUDA_VISIBLE_DEVICES", gpu);
    }
    command
}

/// Runs `command` to its end, its words at the end of the cell's log; asked to stop, it may save first.
fn attend(
    mut command: Command,
    folder: &Folder,
    interrupt: &Interrupt,
    mut show: impl FnMut(),
) -> Result<ExitStatus> {
    let path = folder.log();
    let open = || -> std::io::Result<File> {
        let mut log = OpenOptions::new().create(true).append(true).open(&path)?;
        writeln!(log, "$ {}", words(&command))?;
        Ok(log)
    };
    let log = open().with_context(|| format!("writing {}", path.display()))?;
    command.stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    // A group of its own, so that Ctrl-C reaches this process alone, which then passes it on once.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = (command.spawn())
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let mut asked = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if interrupt.is_pressed() && !asked {
            ask_to_stop(&mut child);
            asked = true;
        }
        show();
        thread::sleep(POLL);
    }
}

#[cfg(unix)]
fn ask_to_stop(child: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process};

    // If it has ended meanwhile there is nobody to ask.
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
}

#[cfg(not(unix))]
fn ask_to_stop(child: &mut Child) {
    let _ = child.kill();
}

/// What is to be said of a process that did not end well.
fn outcome(
    stage: &str,
    status: ExitStatus,
    folder: &Folder,
    interrupt: &Interrupt,
) -> Result<Option<Outcome>> {
    if status.success() {
        return Ok(None);
    }
    // 128 + SIGINT or SIGTERM: it has saved.
    if interrupt.is_pressed() || matches!(status.code(), Some(130 | 143)) {
        return Ok(Some(Outcome::Interrupted));
    }
    let log = tail(&folder.log(), 4096).unwrap_or_default();
    let said = (log.lines().rev())
        .find(|line| line.starts_with("error: "))
        .map_or_else(|| status.to_string(), |line| line["error: ".len()..].into());
    let reason = format!("{stage}: {said}");
    mae_report::write_atomic(&folder.failed(), reason.as_bytes())?;
    Ok(Some(Outcome::Failed(reason)))
}

/// A command as one would type it.
fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether a process trains in this run's folder.
fn is_taken(run: &Path) -> bool {
    let Ok(lock) = File::open(run.join(".lock")) else {
        return false;
    };
    matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock))
}

/// The epochs of a resolved configuration.
fn epochs(config: &Path) -> Result<f64> {
    let text =
        std::fs::read_to_string(config).with_context(|| format!("reading {}", config.display()))?;
    let table: toml::Table = text.parse().with_context(|| config.display().to_string())?;
    (table.get("optim").and_then(|optim| optim.get("epochs")))
        .and_then(toml::Value::as_integer)
        .map(|epochs| epochs as f64)
        .with_context(|| format!("{} has no `optim.epochs`", config.display()))
}

/// How far a pre-training is, by its latest line of metrics.
fn training(run: &Path, epochs: f64) -> Progress {
    let text = tail(&run.join("metrics.jsonl"), 8192).unwrap_or_default();
    let latest = text
        .lines()
        .rev()
        .find_map(|line| match serde_json::from_str(line) {
            Ok(Record::Step {
                epoch,
                loss,
                images_per_s,
                elapsed_s,
                ..
            }) if epoch > 0.0 => Some((epoch, loss, images_per_s, elapsed_s)),
            _ => None,
        });
    let Some((epoch, loss, images_per_s, elapsed_s)) = latest else {
        return Progress::Starting;
    };
    let left = elapsed_s * (epochs - epoch).max(0.0) / epoch;
    Progress::Training {
        share: (epoch / epochs).clamp(0.0, 1.0),
        left: Duration::try_from_secs_f64(left).unwrap_or_default(),
        words: format!("epoch {epoch:.1}/{epochs}  loss {loss:.4}  {images_per_s:.0} images/s"),
    }
}

/// The last `bytes` of a file, at most.
fn tail(path: &Path, bytes: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}
