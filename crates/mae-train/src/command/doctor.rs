//! `mae-train doctor`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use mae_data::LeftOut;
use mae_train::config::MaskedAutoencoding;
use mae_train::distributed::World;
use mae_train::doctor::{Diagnosis, Finding, Plan, RunTime, Severity, Speed, examine};

use super::run::TrainingArgs;
use super::{start_progress, write_stdout};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  mae-train doctor                                        of the quickstart
  mae-train doctor --recipe imagenet_vit_b16 --data imagenet/train
  mae-train doctor --config my.toml --set optim.batch_size=256
  mae-train doctor --data photos --json > doctor.json     for scripts

Exit codes: 0 if the run can begin, 1 if an error would stop it.";

/// What to examine.
#[derive(Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    training: TrainingArgs,
    /// Where the run would be written: its disk is what counts [default: runs]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How long to train for measuring; the loader and the updates alone take half of it each, and all of it up to about
    /// three times as long
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Prints one line of JSON: sizes in bytes, times in seconds, speeds in images a second
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected 0.1 to 3600 seconds".into()),
    }
}

impl DoctorArgs {
    /// Examines the run and says what was found.
    pub fn run(&self) -> Result<ExitCode> {
        let progress = start_progress(&World::alone())?;
        let found = match self.training.resolve::<MaskedAutoencoding>() {
            Ok(config) => {
                let out = self.out.as_deref().unwrap_or(Path::new("runs"));
                examine(config, out, self.seconds, &progress)?
            }
            Err(error) => Diagnosis::refused(&error),
        };
        let words = match self.json {
            true => serde_json::to_string(&found)? + "\n",
            false => describe(&found, now()),
        };
        let written = write_stdout(|out| out.write_all(words.as_bytes()))?;
        Ok(match found.can_start() {
            true => written,
            false => ExitCode::FAILURE,
        })
    }
}

/// The diagnosis in words, as of so many seconds since 1970.
fn describe(found: &Diagnosis, now: u64) -> String {
    let mut report = Report::default();
    if let Some(plan) = &found.plan {
        describe_plan(&mut report, plan, found);
    }
    for line in LeftOut::lines(&found.left_out) {
        report.row("beside", &line);
    }
    describe_memory(&mut report, found);
    if let Some(speed) = &found.speed {
        describe_speed(&mut report, speed, found);
    }
    if let Some(time) = &found.time {
        let is_bound = matches!(
            (&found.speed, &found.plan),
            (Some(speed), Some(plan)) if speed.batch < plan.batch_size
        );
        describe_time(&mut report, time, is_bound, now);
    }
    if let Some(disk) = &found.disk {
        let free = match disk.free {
            Some(free) => format!("; {} free", bytes(free)),
            None => String::new(),
        };
        report.row(
            "disk",
            &format!(
                "{}: {} of {} each at once, metrics and pictures {}{free}",
                bytes(disk.total),
                counted(disk.checkpoints, "checkpoint"),
                bytes(disk.checkpoint),
                bytes(disk.logs),
            ),
        );
    }
    describe_findings(&mut report, &found.findings);
    report.0
}

fn describe_plan(report: &mut Report, plan: &Plan, found: &Diagnosis) {
    let size = |height: usize, width: usize| format!("{width} x {height}");
    let from = match &found.sample {
        Some(sample)
            if sample.width > 0
                && (sample.height, sample.width) != (plan.image_height, plan.image_width) =>
        {
            format!(", from about {}", size(sample.height, sample.width))
        }
        _ => String::new(),
    };
    report.row(
        "images",
        &format!(
            "{} of {}{from}; {}; {} x {} patches of {} pixels a side",
            count(plan.images as u64),
            size(plan.image_height, plan.image_width),
            counted(plan.channels as u64, "channel"),
            plan.rows,
            plan.columns,
            plan.patch_size,
        ),
    );
    report.row(
        "mask",
        &format!(
            "{} patches visible, {} hidden; the encoder sees {} tokens, the decoder {}, the loss {}",
            plan.kept, plan.hidden, plan.encoder_tokens, plan.decoder_tokens, plan.predicted
        ),
    );
    report.row(
        "model",
        &format!(
            "{} parameters, encoder {}, decoder {}; an image takes {} forward, {} to learn from",
            large(plan.parameters.trained() as f64),
            large(plan.parameters.encoder as f64),
            large(plan.parameters.decoder as f64),
            flops(plan.forward_flops as f64),
            flops(plan.training_flops as f64),
        ),
    );
    let batch = match plan.accumulate {
        1 => format!("{} images", plan.batch_size),
        n => format!(
            "{} images = {n} x {}",
            plan.effective_batch, plan.batch_size
        ),
    };
    report.row(
        "update",
        &format!("{batch}; learning rate up to {:.3e}", plan.peak_lr),
    );
    report.row(
        "run",
        &format!(
            "{} of {}: {}, {} of them warm-up; {}",
            counted(plan.epochs, "epoch"),
            counted(plan.steps_per_epoch, "update"),
            counted(plan.steps, "update"),
            count(plan.warmup_steps.round() as u64),
            flops(plan.run_flops),
        ),
    );
}

fn describe_memory(report: &mut Report, found: &Diagnosis) {
    let (Some(memory), Some(device), Some(precision)) =
        (&found.memory, &found.device, found.precision)
    else {
        return;
    };
    let free = match found.device_memory {
        Some(has) => format!(", of {} free", bytes(has.free)),
        None => String::new(),
    };
    let products = match (found.products, found.unused_bf16) {
        (Some(by), Some(unused)) => {
            format!(", products by {by} (run.precision=bf16 would have {unused}, and be faster)")
        }
        (Some(by), None) => format!(", products by {by}"),
        (None, _) => String::new(),
    };
    let threads = match device.as_str() {
        "cpu" => format!(", {}", counted(found.cores as u64, "core")),
        _ => String::new(),
    };
    report.row(
        "device",
        &format!(
            "{device} in {precision}{products}{threads}; {} to load images",
            counted(found.workers as u64, "thread")
        ),
    );
    report.row(
        "memory",
        &format!(
            "about {}{free}: program {}, weights {}, gradients {}, optimizer {}, activations {}, batches {}",
            bytes(memory.total),
            bytes(memory.program),
            bytes(memory.weights),
            bytes(memory.gradients),
            bytes(memory.optimizer),
            bytes(memory.activations),
            bytes(memory.batches),
        ),
    );
    if let Some(peak) = found.speed.and_then(|speed| speed.peak_memory) {
        report.row("", &format!("measuring took {}", bytes(peak)));
    }
}

fn describe_speed(report: &mut Report, speed: &Speed, found: &Diagnosis) {
    report.row(
        "speed",
        &format!(
            "{} images/s, {:.0} % of what matrix products alone would reach; \
             loader alone {}, updates alone {} images/s",
            rate(speed.together),
            100.0 * speed.mfu,
            rate(speed.loader),
            rate(speed.step),
        ),
    );
    let mut limit = match speed.loader_limits() {
        true => format!(
            "the loader limits: updates wait for images {:.0} % of the time",
            100.0 * speed.waiting
        ),
        false => format!(
            "updates limit: they wait for images {:.0} % of the time",
            100.0 * speed.waiting
        ),
    };
    if let Some(plan) = &found.plan {
        if speed.accumulated < plan.accumulate {
            limit += &format!(
                "; measured with updates of {} instead of {}",
                counted(speed.accumulated as u64, "batch"),
                plan.accumulate
            );
        }
        if speed.batch < plan.batch_size {
            limit += &format!(
                "; measured with batches of {} instead of {}, which would take too long; a run is faster, for part of an update takes the same time for any number",
                counted(speed.batch as u64, "image"),
                plan.batch_size
            );
        }
    }
    report.row("", &limit);
}

fn describe_time(report: &mut Report, time: &RunTime, is_bound: bool, now: u64) {
    let mut parts = vec![format!("{} an epoch", duration(time.epoch))];
    let least = 0.01 * time.total;
    for (seconds, name) in [
        (time.start, "start"),
        (time.pictures, "pictures"),
        (time.evaluations, "evaluations"),
        (time.checkpoints, "checkpoints"),
    ] {
        if seconds > least {
            parts.push(format!("{name} {}", duration(seconds)));
        }
    }
    report.row(
        "time",
        &format!(
            "{}{} = {:.2} device-hours: {}; begun now it ends on {}",
            if is_bound { "at most " } else { "" },
            duration(time.total),
            time.total / 3600.0,
            parts.join(", "),
            utc(now + time.total as u64),
        ),
    );
}

fn describe_findings(report: &mut Report, findings: &[Finding]) {
    if findings.is_empty() {
        report.row("", "");
        report.row("", "nothing is wrong");
    }
    for (severity, label) in [(Severity::Error, "error"), (Severity::Warning, "warning")] {
        let of_it = findings.iter().filter(|found| found.severity == severity);
        for (i, finding) in of_it.enumerate() {
            if i == 0 {
                report.row("", "");
            }
            let remedy = match finding.remedy.as_str() {
                "" => String::new(),
                remedy => format!("; {remedy}"),
            };
            report.row(
                label,
                &format!("{}: {}{remedy}", finding.key, finding.problem),
            );
        }
    }
}

/// Between a number and its unit: no line ends there.
const NARROW: char = '\u{a0}';

/// Lines of a label and words, of at most [`WIDTH`] columns.
#[derive(Default)]
struct Report(String);

const LABEL: usize = 9;
const WIDTH: usize = 100;

impl Report {
    fn row(&mut self, label: &str, words: &str) {
        let mut line = format!("{label:LABEL$}");
        for word in words.split(' ') {
            if line.chars().count() + 1 + word.chars().count() > WIDTH && line.trim() != label {
                self.push(&line);
                line = " ".repeat(LABEL);
            }
            line += " ";
            line += word;
        }
        self.push(&line);
    }

    fn push(&mut self, line: &str) {
        self.0 += line.replace(NARROW, " ").trim_end();
        self.0 += "\n";
    }
}

/// `8,192`.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut words = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            words.push(',');
        }
        words.push(digit);
    }
    words
}

/// `1 epoch`, `12 epochs`, `2 batches`.
fn counted(number: u64, name: &str) -> String {
    let plural = match name {
        _ if number == 1 => "",
        name if name.ends_with("ch") && name != "epoch" => "es",
        _ => "s",
    };
    format!("{} {name}{plural}", count(number))
}

/// Three digits and what they are multiplied by.
fn scaled(number: f64, prefixes: &[&str]) -> String {
    let mut number = number;
    let mut prefixes = prefixes.iter();
    let mut prefix = prefixes.next().copied().unwrap_or_default();
    for next in prefixes {
        if number < 999.5 {
            break;
        }
        (number, prefix) = (number / 1000.0, *next);
    }
    let decimals = match number {
        number if prefix.is_empty() && number.fract() == 0.0 => 0,
        number if number < 9.995 => 2,
        number if number < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}{NARROW}{prefix}")
}

fn bytes(number: u64) -> String {
    scaled(number as f64, &["", "k", "M", "G", "T"]) + "B"
}

fn flops(number: f64) -> String {
    scaled(number, &["", "k", "M", "G", "T", "P", "E", "Z"]) + "FLOP"
}

/// `5.72 M`.
fn large(number: f64) -> String {
    scaled(number, &["", "k", "M", "G"]).trim_end().into()
}

fn rate(images_per_s: f64) -> String {
    match images_per_s {
        rate if rate < 9.95 => format!("{rate:.2}"),
        rate if rate < 99.5 => format!("{rate:.1}"),
        rate => count(rate.round() as u64),
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0}{NARROW}ms", 1000.0 * s),
        s if s < 90.0 => format!("{s:.1}{NARROW}s"),
        s if s < 5400.0 => format!("{:.1}{NARROW}min", s / 60.0),
        s if s < 48.0 * 3600.0 => format!("{:.1}{NARROW}h", s / 3600.0),
        s => format!("{:.1}{NARROW}days", s / 86_400.0),
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// `2026-01-31 23:59 UTC`.
fn utc(seconds: u64) -> String {
    let time = jiff::Timestamp::from_second(seconds as i64).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let check = |found: String, expect: &str| {
            assert_eq!(found.replace(NARROW, " "), expect);
        };
        check(count(7), "7");
        check(count(8192), "8,192");
        check(count(1_234_567), "1,234,567");
        check(counted(1, "epoch"), "1 epoch");
        check(counted(12, "epoch"), "12 epochs");
        check(counted(2, "batch"), "2 batches");
        check(bytes(17), "17 B");
        check(bytes(1700), "1.70 kB");
        check(bytes(999_600), "1.00 MB");
        check(bytes(21_400_000_000), "21.4 GB");
        check(flops(8.04e15), "8.04 PFLOP");
        check(large(900_000.0), "900 k");
        check(rate(6.184), "6.18");
        check(rate(63.54), "63.5");
        check(rate(4054.4), "4,054");
        check(duration(0.25), "250 ms");
        check(duration(7.4), "7.4 s");
        check(duration(95.0), "1.6 min");
        check(duration(11_520.0), "3.2 h");
        check(duration(1e6), "11.6 days");
    }

    #[test]
    fn seconds_become_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_735_689_599), "2024-12-31 23:59 UTC");
    }

    #[test]
    fn lines_end_before_the_edge() {
        let mut report = Report::default();
        report.row("label", &"word ".repeat(60));
        report.row("label", &"x".repeat(120));
        let lines: Vec<&str> = report.0.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(
            lines[..4].iter().all(|line| line.len() <= WIDTH),
            "{lines:?}"
        );
        assert!(lines[0].starts_with("label     word"));
        assert!(lines[1].starts_with("          word"));
        assert_eq!(lines[4].len(), LABEL + 1 + 120);
    }

    #[test]
    fn findings_name_key_and_remedy() {
        let error = anyhow::anyhow!("`optim.epochs` is 0, expected at least 1");
        let words = describe(&Diagnosis::refused(&error), 0);
        assert_eq!(
            words,
            "\nerror     configuration: `optim.epochs` is 0, expected at least 1\n"
        );
        let words = describe(&Diagnosis::default(), 0);
        assert_eq!(words, "\n          nothing is wrong\n");
    }
}
