//! Measurements to tables, for the terminal and for the page alike.

use serde_json::{Map, Value};

use super::record::{Contender, Group, Record, Run};

/// The records of a section, each under its processor's name.
pub fn render_all(records: &[Record]) -> String {
    let texts = records
        .iter()
        .map(|record| format!("### {}\n\n{}", record.machine.cpu, render(record)));
    texts.collect::<Vec<_>>().join("\n")
}

/// A section's tables in Markdown, and what a reader must know of them.
pub fn render(record: &Record) -> String {
    let machine = &record.machine;
    let memory = machine
        .memory
        .map(|bytes| format!(", {:.0} GiB", bytes as f64 / f64::from(1 << 30)));
    let mut text = format!(
        "Measured {} at revision {} on {}, {} cores{}, {}; {}, libtorch {}{}.\n\
         Medians of {} rounds in turn, with the least and the most; every measurement is in bench.json.\n",
        &record.date[..record.date.len().min(10)],
        record.revision,
        machine.cpu,
        machine.cores,
        memory.unwrap_or_default(),
        machine.os,
        record.rustc,
        record.libtorch,
        versions(record),
        record.rounds,
    );
    for note in &record.notes {
        text += note;
        text.push('\n');
    }
    let peak = record
        .groups
        .iter()
        .flat_map(|group| &group.contenders)
        .flat_map(|contender| numbers(contender, "matmul_gflops"))
        .reduce(f64::max);
    for group in &record.groups {
        if group.contenders.iter().any(|one| {
            value(one, "matmul_gflops").is_some() && value(one, "images_per_s").is_none()
        }) {
            text += &products(group);
        } else {
            text += &format!("\n**{}**\n\n{}", group.title, speeds(group, peak));
        }
    }
    if let Some(peak) = peak {
        text += &format!("\nThe fastest matrix products of the run: {peak:.0} GFLOP/s.\n");
    }
    let failures = record
        .groups
        .iter()
        .flat_map(|group| group.contenders.iter().map(move |one| (group, one)));
    for (group, contender) in failures {
        if let Some(reason) = &contender.failure {
            text += &format!(
                "\nLeft out of {}: {}, which did not run ({reason}).\n",
                group.title, contender.name
            );
        }
    }
    text += "\nOne measurement each:\n\n```sh\n";
    for contender in record.groups.iter().flat_map(|group| &group.contenders) {
        text += &contender.command;
        text.push('\n');
    }
    text + &format!("```\n\nAll of them: `{}`.\n", record.command)
}

/// Images per second, ratios and memory.
fn speeds(group: &Group, peak: Option<f64>) -> String {
    let measured = |contender: &Contender| contender.failure.is_none();
    let ours = group
        .contenders
        .first()
        .and_then(|ours| value(ours, "images_per_s"));
    let operations = group
        .contenders
        .iter()
        .find_map(|one| value(one, "gflops_per_image"));
    let of_peak = operations.zip(peak);

    let mut header = vec!["", "images/s", "least to most", "ours is"];
    if of_peak.is_some() {
        header.push("of peak");
    }
    header.push("peak memory");
    let mut rows = vec![header.into_iter().map(str::to_string).collect::<Vec<_>>()];
    for contender in group.contenders.iter().filter(|one| measured(one)) {
        let speeds = numbers(contender, "images_per_s");
        let Some(speed) = median(&speeds) else {
            continue;
        };
        let (least, most) = extremes(&speeds);
        let mut row = vec![
            contender.name.clone(),
            short(speed),
            format!("{} to {}", short(least), short(most)),
            ours.map_or(String::new(), |ours| format!("{:.2} x", ours / speed)),
        ];
        if let Some((operations, peak)) = of_peak {
            row.push(format!("{:.0} %", 100.0 * speed * operations / peak));
        }
        row.push(
            value(contender, "peak_rss_mb")
                .map_or(String::new(), |memory| format!("{memory:.0} MB")),
        );
        rows.push(row);
    }
    layout(&rows)
}

/// What the machine can do.
fn products(group: &Group) -> String {
    group
        .contenders
        .iter()
        .filter_map(|contender| {
            let speeds = numbers(contender, "matmul_gflops");
            let (least, most) = extremes(&speeds);
            Some(format!(
                "\nThe product of two 4096 x 4096 matrices ({}): {:.0} GFLOP/s, {least:.0} to {most:.0}.\n",
                contender.name,
                median(&speeds)?
            ))
        })
        .collect()
}

/// Rows as a Markdown table; numbers are at the right.
fn layout(rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| {
            let widths = rows.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or(0).max(3)
        })
        .collect();
    let line = |row: &[String]| {
        let cells =
            row.iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    0 => format!(" {cell:<width$} |"),
                    _ => format!(" {cell:>width$} |"),
                });
        format!("|{}\n", cells.collect::<String>())
    };
    let rule = widths.iter().enumerate().map(|(column, width)| {
        let dashes = "-".repeat(width + 1);
        match column {
            0 => format!("{dashes}-|"),
            _ => format!("{dashes}:|"),
        }
    });
    let rule = format!("|{}\n", rule.collect::<String>());
    let body = rows[1..].iter().map(|row| line(row));
    line(&rows[0]) + &rule + &body.collect::<String>()
}

/// The versions that measurements named, each once.
fn versions(record: &Record) -> String {
    let mut seen: Vec<String> = Vec::new();
    let lines = record
        .groups
        .iter()
        .flat_map(|group| &group.contenders)
        .flat_map(|contender| &contender.runs)
        .flat_map(|run| &run.lines);
    for versions in lines.filter_map(|line| line.get("versions")?.as_object()) {
        for (package, version) in versions {
            let version = format!("{package} {}", version.as_str().unwrap_or("?"));
            if !seen.contains(&version) {
                seen.push(version);
            }
        }
    }
    if seen.is_empty() {
        String::new()
    } else {
        format!("; {}", seen.join(", "))
    }
}

/// The median of a contender's rounds.
fn value(contender: &Contender, key: &str) -> Option<f64> {
    median(&numbers(contender, key))
}

/// One number a round.
fn numbers(contender: &Contender, key: &str) -> Vec<f64> {
    contender
        .runs
        .iter()
        .filter_map(|run| number(run, key))
        .collect()
}

/// The median of a run's lines; the first of several is the warm-up.
fn number(run: &Run, key: &str) -> Option<f64> {
    let lines = match run.lines.len() {
        0 | 1 => &run.lines[..],
        _ => &run.lines[1..],
    };
    let numbers = lines
        .iter()
        .filter_map(|line: &Map<String, Value>| line.get(key)?.as_f64());
    median(&numbers.collect::<Vec<_>>())
}

fn median(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

fn extremes(numbers: &[f64]) -> (f64, f64) {
    numbers
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &one| {
            (least.min(one), most.max(one))
        })
}

/// Three digits or all of a whole number.
fn short(number: f64) -> String {
    let decimals = match number {
        _ if number >= 100.0 => 0,
        _ if number >= 10.0 => 1,
        _ => 2,
    };
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mae_report::Machine;
    use serde_json::json;

    fn run(round: u32, lines: &[Value]) -> Run {
        Run {
            round,
            started: "2026-01-02T03:04:05Z".into(),
            lines: lines
                .iter()
                .map(|line| line.as_object().unwrap().clone())
                .collect(),
        }
    }

    fn contender(name: &str, runs: Vec<Run>) -> Contender {
        Contender {
            name: name.into(),
            command: format!("run {name}"),
            failure: None,
            runs,
        }
    }

    fn record(groups: Vec<Group>) -> Record {
        Record {
            date: "2026-01-02T03:04:05Z".into(),
            revision: "abc1234".into(),
            command: "run all".into(),
            machine: Machine {
                cpu: "A CPU".into(),
                cores: 2,
                memory: Some(24 << 30),
                os: "An OS".into(),
            },
            rustc: "rustc 1.95.0".into(),
            libtorch: "2.13.0".into(),
            rounds: 3,
            notes: vec!["A note.".into()],
            groups,
        }
    }

    #[test]
    fn loaders_are_compared() {
        let line = |speed: f64, memory: f64| json!({"images_per_s": speed, "peak_rss_mb": memory});
        let ours = vec![
            // The first epoch of several is not measured.
            run(
                1,
                &[line(1.0, 90.0), line(2000.0, 93.0), line(2200.0, 93.0)],
            ),
            run(2, &[line(1.0, 90.0), line(2000.0, 95.0)]),
            run(3, &[line(1.0, 90.0), line(2300.0, 91.0)]),
        ];
        let other =
            json!({"images_per_s": 1000, "peak_rss_mb": 1500.4, "versions": {"b": "2", "a": "1"}});
        let other = (1..=3).map(|round| run(round, std::slice::from_ref(&other)));
        let mut missing = contender("missing", Vec::new());
        missing.failure = Some("no such module".into());
        let record = record(vec![Group {
            title: "2 workers".into(),
            contenders: vec![
                contender("ours", ours),
                contender("other", other.collect()),
                missing,
            ],
        }]);
        let text = render_all(std::slice::from_ref(&record));
        for expect in [
            "### A CPU\n\nMeasured 2026-01-02 at revision abc1234 on A CPU, 2 cores, 24 GiB, An OS; \
             rustc 1.95.0, libtorch 2.13.0; a 1, b 2.\nMedians of 3 rounds",
            "\nA note.\n",
            "\n**2 workers**\n\n\
             |       | images/s | least to most | ours is | peak memory |\n\
             |-------|---------:|--------------:|--------:|------------:|\n\
             | ours  |     2100 |  2000 to 2300 |  1.00 x |       93 MB |\n\
             | other |     1000 |  1000 to 1000 |  2.10 x |     1500 MB |\n",
            "\nLeft out of 2 workers: missing, which did not run (no such module).\n",
            "```sh\nrun ours\nrun other\nrun missing\n```\n\nAll of them: `run all`.\n",
        ] {
            assert!(text.contains(expect), "no {expect:?} in: {text}");
        }
    }

    #[test]
    fn steps_are_compared_with_the_fastest_product() {
        let ours = json!({"images_per_s": 20.0, "gflops_per_image": 4.0, "matmul_gflops": 90.0});
        let other = json!({"images_per_s": 10.0});
        let product = |speed: f64| json!({"matmul_gflops": speed});
        let text = render(&record(vec![
            Group {
                title: "small".into(),
                contenders: vec![
                    contender("ours", vec![run(1, &[ours])]),
                    contender("other", vec![run(1, &[other])]),
                ],
            },
            Group {
                title: "product".into(),
                contenders: vec![contender(
                    "matmul",
                    vec![run(1, &[product(100.0)]), run(2, &[product(80.0)])],
                )],
            },
        ]));
        for expect in [
            "| ours  |     20.0 |  20.0 to 20.0 |  1.00 x |    80 % |",
            "| other |     10.0 |  10.0 to 10.0 |  2.00 x |    40 % |",
            "(matmul): 90 GFLOP/s, 80 to 100.\n",
        ] {
            assert!(text.contains(expect), "no {expect:?} in: {text}");
        }
        assert!(!text.contains("**product**"), "{text}");
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
