//! Signs of life: which process is gone, and why, when a collective call says only that one is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use torch_ext::Store;

use crate::error::Lost;

/// Between two signs of life.
const BEAT: Duration = Duration::from_millis(500);
/// A process without a sign of life for this long is taken for gone.
const SILENCE: Duration = Duration::from_secs(4);
/// How long the store may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// How long a process that keeps the store stays for others to read it.
const LEAVE: Duration = Duration::from_secs(6);
/// How long it takes at most to find out who is gone.
pub const ASKING: Duration = Duration::from_secs(SILENCE.as_secs() + ANSWER.as_secs());

/// What became of the other processes.
#[derive(Debug, Default)]
pub struct Missing {
    /// In words; nothing if all seem well.
    pub words: Vec<String>,
    /// Those who give no sign of life.
    silent: Vec<usize>,
    /// Whether nobody can be told anything.
    is_store_gone: bool,
}

/// Tells the other processes that this one lives, and asks after them.
#[derive(Debug)]
pub struct Watch {
    store: Arc<Store>,
    rank: usize,
    size: usize,
    /// Whether the store is gone when the first process is.
    first_keeps_store: bool,
    is_over: Arc<AtomicBool>,
}

impl Watch {
    /// Begins with signs of life, on another thread.
    ///
    /// # Errors
    /// If the store is gone, or there is no thread to be had.
    pub fn start(store: &Store, rank: usize, size: usize, first_keeps_store: bool) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (beats, over) = (store.connection()?, Arc::clone(&is_over));
        thread::Builder::new()
            .name("signs-of-life".into())
            .spawn(move || {
                while !over.load(Ordering::Relaxed) && beats.add(&alive(rank), 1).is_ok() {
                    thread::sleep(BEAT);
                }
            })
            .context("starting a thread for signs of life")?;
        Ok(Self {
            store: Arc::new(store.connection()?),
            rank,
            size,
            first_keeps_store,
            is_over,
        })
    }

    /// Which others are gone, and what they said.
    pub fn missing(&self) -> Missing {
        let (store, rank, size) = (Arc::clone(&self.store), self.rank, self.size);
        let (sender, answer) = channel();
        // On a thread of its own: a store whose keeper is stopped never answers.
        thread::spawn(move || sender.send(ask(&store, rank, size)));
        match answer.recv_timeout(ASKING) {
            Ok(Ok(missing)) => missing,
            Ok(Err(_)) | Err(_) => Missing {
                words: vec![match self.first_keeps_store {
                    true => "process 0, at which all meet, does not answer: it ended, is stopped, or is cut off".into(),
                    false => "the launcher, at which the processes meet, does not answer".into(),
                }],
                silent: Vec::new(),
                is_store_gone: true,
            },
        }
    }

    /// The value of a key, once another process has written it.
    ///
    /// # Errors
    /// If it does not within `timeout`, or ends before.
    pub fn wait_for(&self, key: &str, timeout: Duration) -> Result<Vec<u8>> {
        let start = Instant::now();
        loop {
            let waited = self.store.wait(key, BEAT);
            if self.store.has(key).map_err(Lost::from)? {
                return Ok(self.store.get(key).map_err(Lost::from)?);
            }
            for other in 0..self.size {
                match reason(&self.store, other).map_err(Lost::from)? {
                    None => {}
                    Some(reason) if reason.is_empty() => {
                        bail!("process {other} ended, for another one is gone")
                    }
                    Some(reason) => bail!("process {other} ended: {reason}"),
                }
            }
            if start.elapsed() > timeout {
                waited.map_err(Lost::from)?;
            }
        }
    }

    /// Tells the others why this process ends; those `missing` are not waited for.
    pub fn leave(&self, reason: &str, missing: &Missing) {
        self.is_over.store(true, Ordering::Relaxed);
        if missing.is_store_gone {
            return;
        }
        let (store, rank) = (Arc::clone(&self.store), self.rank);
        let others: Vec<usize> = match rank == 0 && self.first_keeps_store {
            true => (1..self.size)
                .filter(|other| !missing.silent.contains(other))
                .collect(),
            false => Vec::new(),
        };
        let (reason, (sender, done)) = (reason.to_string(), channel());
        thread::spawn(move || {
            let _ = tell(&store, rank, &reason, &others);
            let _ = sender.send(());
        });
        let _ = done.recv_timeout(LEAVE + BEAT);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn alive(rank: usize) -> String {
    format!("alive/{rank}")
}

fn left(rank: usize) -> String {
    format!("left/{rank}")
}

/// Why a process ended, if it did and said so; empty where it only followed another.
fn reason(store: &Store, other: usize) -> torch_ext::Result<Option<String>> {
    match store.has(&left(other))? {
        true => Ok(Some(
            String::from_utf8_lossy(&store.get(&left(other))?).into_owned(),
        )),
        false => Ok(None),
    }
}

/// Looks for words that others left and, for as long as it takes to be sure, for signs of life.
fn ask(store: &Store, rank: usize, size: usize) -> torch_ext::Result<Missing> {
    let others = || (0..size).filter(|&other| other != rank);
    let beats = || -> torch_ext::Result<Vec<i64>> {
        others().map(|other| store.add(&alive(other), 0)).collect()
    };
    let before = beats()?;
    let start = Instant::now();
    loop {
        let mut missing = Missing::default();
        let is_late = start.elapsed() > SILENCE;
        for ((other, before), now) in others().zip(&before).zip(beats()?) {
            match reason(store, other)? {
                // It ended because another is gone, which is no cause.
                Some(reason) if reason.is_empty() => {}
                Some(reason) => missing
                    .words
                    .push(format!("process {other} ended: {reason}")),
                None if is_late && now == *before => {
                    missing.silent.push(other);
                    missing.words.push(format!(
                        "process {other} gave no sign of life for {} s: it was killed, is stopped, or is cut off",
                        SILENCE.as_secs()
                    ));
                }
                None => {}
            }
        }
        if is_late || !missing.words.is_empty() {
            return Ok(missing);
        }
        thread::sleep(BEAT / 2);
    }
}

/// Leaves a word, and waits for `others` to leave one, who read the store that ends with this process.
fn tell(store: &Store, rank: usize, reason: &str, others: &[usize]) -> torch_ext::Result<()> {
    store.set(&left(rank), reason.as_bytes())?;
    let start = Instant::now();
    for &other in others {
        while !store.has(&left(other))? && start.elapsed() < LEAVE {
            thread::sleep(BEAT / 2);
        }
    }
    Ok(())
}
