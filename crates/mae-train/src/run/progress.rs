//! What a person sees while it runs: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows the state of a run on standard error.
#[derive(Debug)]
pub struct Progress {
    bars: MultiProgress,
    plain: Option<Mutex<Plain>>,
}

/// Lines for a log file: at most one in [`PLAIN_EVERY`], and every important one.
#[derive(Debug)]
struct Plain {
    last: Option<Instant>,
}

const PLAIN_EVERY: Duration = Duration::from_secs(10);

impl Progress {
    /// A bar if standard error is a terminal, else lines.
    pub fn stderr() -> Self {
        let plain = (!std::io::stderr().is_terminal()).then(|| Mutex::new(Plain { last: None }));
        Self {
            bars: MultiProgress::new(),
            plain,
        }
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            plain: None,
        }
    }

    /// Where other output, such as a logger's, must go so as not to tear the bar.
    pub fn bars(&self) -> MultiProgress {
        self.bars.clone()
    }

    /// A line that stays.
    pub fn line(&self, line: &str) {
        match self.plain {
            Some(_) => eprintln!("{line}"),
            None => {
                // Fails only if the terminal is gone, and then nobody reads it.
                let _ = self.bars.println(line);
            }
        }
    }

    /// Starts a bar of `steps`, of which `done` are behind.
    pub fn start(&self, done: u64, steps: u64) -> Steps<'_> {
        let style =
            ProgressStyle::with_template("{bar:24} {percent:>3}%  {msg}  {elapsed} + {eta} left")
                .expect("a valid template")
                .progress_chars("━╸─");
        let bar = self.bars.add(
            ProgressBar::new(steps)
                .with_style(style)
                .with_position(done),
        );
        bar.reset_eta();
        Steps {
            progress: self,
            bar,
            started: Instant::now(),
            done,
        }
    }
}

/// The bar of a run.
#[derive(Debug)]
pub struct Steps<'a> {
    progress: &'a Progress,
    bar: ProgressBar,
    started: Instant,
    done: u64,
}

impl Steps<'_> {
    /// One more step is behind.
    pub fn advance(&self) {
        self.bar.inc(1);
    }

    /// `done` steps are behind.
    pub fn advance_to(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// The latest numbers.
    pub fn message(&self, message: &str) {
        self.bar.set_message(message.to_string());
        if let Some(plain) = &self.progress.plain {
            let mut plain = plain
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            if plain.last.is_none_or(|last| last.elapsed() >= PLAIN_EVERY) {
                plain.last = Some(Instant::now());
                eprintln!(
                    "step {}/{}  {message}  {} left",
                    self.bar.position(),
                    self.length(),
                    self.time_left()
                );
            }
        }
    }

    /// A line that stays.
    pub fn line(&self, line: &str) {
        self.progress.line(line);
    }

    fn length(&self) -> u64 {
        self.bar.length().unwrap_or_default()
    }

    fn time_left(&self) -> String {
        let made = self.bar.position().saturating_sub(self.done).max(1);
        let left = self.length().saturating_sub(self.bar.position());
        let seconds = self.started.elapsed().as_secs_f64() * left as f64 / made as f64;
        indicatif::HumanDuration(Duration::from_secs(seconds as u64)).to_string()
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
