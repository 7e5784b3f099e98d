//! Starts the processes of a run on this machine.

use std::process::{Child, Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use torch_ext::Store;

use crate::run::interrupt::Interrupt;

/// The launcher's process number, for those that it starts.
const LAUNCHER: &str = "MAE_LAUNCHER";
/// Between two looks at the processes.
const LOOK: Duration = Duration::from_millis(50);
/// How long the others may take to say that one is gone, before they are ended.
const GRACE: Duration = Duration::from_secs(12);

/// Starts this program `count` times with the same arguments, as the processes of one run, and waits for all.
///
/// A signal to this process goes on to them. When one fails the others are given some time to say so, and ended.
/// The exit code is that of the first that failed.
///
/// # Errors
/// If a process cannot be started.
pub fn launch(count: usize) -> Result<ExitCode> {
    ensure!(count > 0, "--nproc is 0: expected at least one process");
    let interrupt = Interrupt::catch()?;
    // Kept here, so that it outlives each of them; a port of 0 is any that is free.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("finding a free port")?;
    let port = listener.local_addr()?.port();
    drop(listener);
    let _store = Store::connect("127.0.0.1", port, true, Duration::from_secs(60))?;

    let program = std::env::current_exe().context("finding this program")?;
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut processes = Processes(Vec::new());
    for rank in 0..count {
        let mut command = Command::new(&program);
        command
            .args(std::env::args_os().skip(1))
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("WORLD_SIZE", count.to_string())
            .env("LOCAL_WORLD_SIZE", count.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .env("TORCHELASTIC_USE_AGENT_STORE", "True")
            .env("TORCHELASTIC_RESTART_COUNT", "0")
            .env(LAUNCHER, std::process::id().to_string());
        if std::env::var_os("OMP_NUM_THREADS").is_none() {
            command.env("OMP_NUM_THREADS", (cores / count).max(1).to_string());
        }
        // A terminal's Ctrl-C would reach them directly, and a second time from here.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command
            .spawn()
            .with_context(|| format!("starting process {rank}"))?;
        processes.0.push(child);
    }
    processes.wait(&interrupt)
}

/// Whether [`launch`] started this process: then it must not launch others. It ends when the launcher does.
///
/// # Errors
/// If the system refuses.
pub fn end_with_launcher() -> Result<bool> {
    let Ok(launcher) = std::env::var(LAUNCHER) else {
        return Ok(false);
    };
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        set_parent_process_death_signal(Some(Signal::TERM))
            .context("asking to be ended with the launcher")?;
        // It may have ended before this was asked.
        let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string());
        ensure!(parent == Some(launcher), "the launcher has ended");
    }
    Ok(true)
}

struct Processes(Vec<Child>);

impl Processes {
    fn wait(&mut self, interrupt: &Interrupt) -> Result<ExitCode> {
        let mut codes: Vec<Option<u8>> = vec![None; self.0.len()];
        let mut failure: Option<(u8, Instant)> = None;
        let (mut sent, mut is_killed) = (None, false);
        while codes.iter().any(Option::is_none) {
            for (rank, (child, code)) in self.0.iter_mut().zip(&mut codes).enumerate() {
                if code.is_some() {
                    continue;
                }
                let Some(status) = child
                    .try_wait()
                    .with_context(|| format!("process {rank}"))?
                else {
                    continue;
                };
                let ended = code_of(status);
                *code = Some(ended);
                if ended != 0 && failure.is_none() {
                    failure = Some((ended, Instant::now()));
                    if let Some(signal) = signal_of(status) {
                        eprintln!("error: process {rank} was ended by signal {signal}");
                    }
                }
            }
            if interrupt.signal() != sent {
                sent = interrupt.signal();
                self.signal(sent.unwrap_or_default(), &codes);
            }
            if !is_killed && failure.is_some_and(|(_, since)| since.elapsed() > GRACE) {
                self.kill(&codes);
                is_killed = true;
            }
            thread::sleep(LOOK);
        }
        Ok(ExitCode::from(failure.map_or(0, |(code, _)| code)))
    }

    /// Sends a signal to those that still run.
    fn signal(&self, signal: i32, codes: &[Option<u8>]) {
        #[cfg(unix)]
        for (child, _) in self.0.iter().zip(codes).filter(|(_, code)| code.is_none()) {
            use rustix::process::{Pid, Signal, kill_process};
            let pid = Pid::from_raw(child.id() as i32);
            if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(signal)) {
                // It may have ended meanwhile.
                let _ = kill_process(pid, signal);
            }
        }
    }

    fn kill(&mut self, codes: &[Option<u8>]) {
        for (child, _) in self
            .0
            .iter_mut()
            .zip(codes)
            .filter(|(_, code)| code.is_none())
        {
            if child.kill().is_ok() {
                eprintln!(
                    "a process that did not end within {} s of the first failure was ended",
                    GRACE.as_secs()
                );
            }
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Only after an error here: else all have ended.
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn signal_of(status: std::process::ExitStatus) -> Option<i32> {
    #[cfg(unix)]
    return std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    return None;
}

fn code_of(status: std::process::ExitStatus) -> u8 {
    match signal_of(status) {
        Some(signal) => 128 + signal as u8,
        None => status.code().map_or(1, |code| code as u8),
    }
}
