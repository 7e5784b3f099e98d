//! Signs of life: which process is gone, and why, when a collective call says only that one is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use torch_ext::Store;

/// Between two signs of life.
const BEAT: Duration = Duration::from_millis(500);
/// A process without a sign of life for this long is taken for gone.
const SILENCE: Duration = Duration::from_secs(4);
/// How long the store may take to answer.
const ANSWER: Duration = Duration::from_secs(8);
/// How long a process that keeps the store stays for others to read it.
const LEAVE: Duration = Duration::from_secs(10);

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

    /// Which others are gone, and what they said; nothing if all seem well.
    pub fn missing(&self) -> Vec<String> {
        let (store, rank, size) = (Arc::clone(&self.store), self.rank, self.size);
        let (sender, answer) = channel();
        // On a thread of its own: a store whose keeper is stopped never answers.
        thread::spawn(move || sender.send(ask(&store, rank, size)));
        match answer.recv_timeout(SILENCE + ANSWER) {
            Ok(Ok(missing)) => missing,
            Ok(Err(_)) | Err(_) if self.first_keeps_store && rank != 0 => vec![
                "process 0, at which the others meet, does not answer: it ended, is stopped, or is cut off".into(),
            ],
            Ok(Err(_)) | Err(_) => {
                vec!["the launcher, at which the processes meet, does not answer".into()]
            }
        }
    }

    /// Tells the others why this process ends.
    pub fn leave(&self, reason: &str) {
        self.is_over.store(true, Ordering::Relaxed);
        let (store, rank, size) = (Arc::clone(&self.store), self.rank, self.size);
        let (reason, keeps_store) = (reason.to_string(), rank == 0 && self.first_keeps_store);
        let (sender, done) = channel();
        thread::spawn(move || {
            let _ = tell(&store, rank, size, &reason, keeps_store);
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

/// Looks for words that others left and, for as long as it takes to be sure, for signs of life.
fn ask(store: &Store, rank: usize, size: usize) -> torch_ext::Result<Vec<String>> {
    let others = || (0..size).filter(|&other| other != rank);
    let beats = || -> torch_ext::Result<Vec<i64>> {
        others().map(|other| store.add(&alive(other), 0)).collect()
    };
    let before = beats()?;
    let start = Instant::now();
    loop {
        let mut words = Vec::new();
        let is_late = start.elapsed() > SILENCE;
        for ((other, before), now) in others().zip(&before).zip(beats()?) {
            if store.has(&left(other))? {
                let reason = String::from_utf8_lossy(&store.get(&left(other))?).into_owned();
                // What followed from another's end is no cause.
                if !reason.is_empty() {
                    words.push(format!("process {other} ended: {reason}"));
                }
            } else if is_late && now == *before {
                words.push(format!(
                    "process {other} gave no sign of life for {} s: it was killed, is stopped, or is cut off",
                    SILENCE.as_secs()
                ));
            }
        }
        if is_late || !words.is_empty() {
            return Ok(words);
        }
        thread::sleep(BEAT / 2);
    }
}

/// Leaves a word, and waits for the others to leave one if the store ends with this process.
fn tell(
    store: &Store,
    rank: usize,
    size: usize,
    reason: &str,
    keeps_store: bool,
) -> torch_ext::Result<()> {
    store.set(&left(rank), reason.as_bytes())?;
    let start = Instant::now();
    while keeps_store && start.elapsed() < LEAVE {
        let mut all = true;
        for other in 0..size {
            all &= store.has(&left(other))?;
        }
        if all {
            break;
        }
        thread::sleep(BEAT / 2);
    }
    Ok(())
}
