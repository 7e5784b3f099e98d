//! The table of progress: on a terminal a live one, elsewhere lines.

use std::{
    io::IsTerminal,
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use super::cell::Progress;

/// How often a running cell is mentioned where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(60);

/// Cells that are done, running and waiting.
pub struct Display {
    bars: MultiProgress,
    total: ProgressBar,
    is_terminal: bool,
    cells: usize,
    jobs: usize,
    state: Mutex<State>,
}

struct State {
    started: usize,
    done: usize,
    failed: usize,
    /// Seconds of the cells that ended here.
    seconds: Vec<f64>,
}

/// The line of a running cell.
pub struct Line<'a> {
    display: &'a Display,
    bar: ProgressBar,
    name: String,
    began: Instant,
    said: Instant,
}

impl Display {
    /// Of `cells`, of which `done` were finished before.
    pub fn start(cells: usize, done: usize, jobs: usize) -> Self {
        let bars = MultiProgress::new();
        let total = bars.add(ProgressBar::new(cells as u64));
        total.set_style(style("{bar:24} {pos}/{len} cells  {msg}"));
        total.set_position(done as u64);
        let display = Self {
            bars,
            total,
            is_terminal: std::io::stderr().is_terminal(),
            cells,
            jobs,
            state: Mutex::new(State {
                started: done,
                done,
                failed: 0,
                seconds: Vec::new(),
            }),
        };
        display.say(&format!(
            "{done} of {cells} cells are done, {jobs} at a time"
        ));
        display
    }

    /// A cell begins.
    pub fn begin(&self, name: &str) -> Line<'_> {
        let bar = self.bars.add(ProgressBar::new(1000));
        bar.set_style(style("  {bar:22} {prefix}  {msg}"));
        bar.set_prefix(name.to_string());
        let mut state = self.lock();
        state.started += 1;
        self.summarise(&state);
        if !self.is_terminal {
            eprintln!("[{}/{}] {name}: begins", state.started, self.cells);
        }
        Line {
            display: self,
            bar,
            name: name.into(),
            began: Instant::now(),
            said: Instant::now(),
        }
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        match self.is_terminal {
            // Fails only if the terminal is gone, and then nobody reads it.
            true => drop(self.bars.println(line)),
            false => eprintln!("{line}"),
        }
    }

    fn summarise(&self, state: &State) {
        let waiting = self.cells - state.started;
        let running = state.started - state.done;
        let mut words = format!("{running} running, {waiting} waiting");
        if state.failed > 0 {
            words += &format!(", {} failed", state.failed);
        }
        if !state.seconds.is_empty() {
            let mean = state.seconds.iter().sum::<f64>() / state.seconds.len() as f64;
            let left = mean * (waiting as f64 + 0.5 * running as f64) / self.jobs as f64;
            words += &format!(", about {} left", human(Duration::from_secs_f64(left)));
        }
        self.total.set_message(words);
        self.total.set_position(state.done as u64);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Line<'_> {
    /// What the cell is doing now.
    pub fn show(&mut self, progress: &Progress) {
        let (share, words) = match progress {
            Progress::Starting => (0.0, "starting".to_string()),
            Progress::Waiting => (
                0.0,
                "waiting: another process has it already, perhaps one left by an earlier ablation"
                    .into(),
            ),
            Progress::Training { share, left, words } => {
                (*share, format!("{words}  {} left", human(*left)))
            }
            Progress::Judging { protocols, since } => {
                (1.0, format!("judging by {protocols} for {}", human(*since)))
            }
        };
        self.bar.set_position((1000.0 * share) as u64);
        self.bar.set_message(words.clone());
        if !self.display.is_terminal && self.said.elapsed() >= PLAIN_EVERY {
            self.said = Instant::now();
            eprintln!("{}: {words}; {}", self.name, self.display.total.message());
        }
    }

    /// The cell has ended, in these words.
    pub fn end(self, failed: bool, words: &str) {
        self.bar.finish_and_clear();
        let seconds = self.began.elapsed();
        let mut state = self.display.lock();
        state.done += 1;
        state.failed += usize::from(failed);
        state.seconds.push(seconds.as_secs_f64());
        self.display.summarise(&state);
        drop(state);
        let time = human(seconds);
        self.display.say(&format!("{}: {words}, {time}", self.name));
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("a valid template")
        .progress_chars("━╸─")
}

fn human(duration: Duration) -> HumanDuration {
    HumanDuration(Duration::from_secs(duration.as_secs()))
}
