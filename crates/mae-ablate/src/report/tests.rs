use std::{collections::BTreeMap, fs, path::Path};

use super::{lines::Line, *};

fn run(seed: u64, linear: f64) -> RunReport {
    RunReport {
        seed,
        folder: PathBuf::from(format!("runs/seed-{seed}")),
        outcome: Outcome::Finished,
        scores: BTreeMap::from([
            ("linear".to_owned(), linear),
            ("knn k=20".to_owned(), linear - 0.1),
        ]),
        loss: Some(0.4 + linear / 100.0),
        pretrain_s: Some(300.0),
        eval_s: Some(30.0),
        images_per_s: Some(1234.5),
        flops_per_image: Some(2_500_000_000),
    }
}

/// A value whose seeds had these accuracies by a linear probe.
fn value(label: &str, linear: &[f64]) -> ValueReport {
    ValueReport {
        label: label.to_owned(),
        number: label.parse().ok(),
        settings: vec![format!("mask.ratio={label}")],
        paper: BTreeMap::new(),
        runs: (1..)
            .zip(linear)
            .map(|(seed, &linear)| run(seed, linear))
            .collect(),
        command: format!("mae-train pretrain --set mask.ratio={label}"),
        config: format!("[mask]\nratio = {label}\n"),
        picture: None,
    }
}

fn study(values: Vec<ValueReport>) -> StudyReport {
    StudyReport {
        name: "mask-ratio".to_owned(),
        panel: None,
        title: "Mask ratio".to_owned(),
        question: "How much must be hidden?".to_owned(),
        axis: "mask ratio".to_owned(),
        numeric: true,
        rule: None,
        loss_comparable: true,
        reference: 0,
        paper: None,
        values,
    }
}

fn report(studies: Vec<StudyReport>) -> Report {
    Report {
        title: "Ablations".to_owned(),
        command: "cargo xtask ablate --data photos".to_owned(),
        machine: "2 cores".to_owned(),
        revision: "0123abc".to_owned(),
        base_config: "seed = 1\n".to_owned(),
        notes: Vec::new(),
        studies,
    }
}

struct Written {
    folder: tempfile::TempDir,
    html: String,
    markdown: String,
    lines: Vec<Line>,
}

impl Written {
    fn new(studies: Vec<StudyReport>) -> Self {
        Self::of(&report(studies))
    }

    fn of(report: &Report) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(report, folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let lines = read("results.jsonl");
        Self {
            html: read("report.html"),
            markdown: read("report.md"),
            lines: lines
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
            folder,
        }
    }

    /// Expects `words` in the page and in the text, each as it shows them.
    #[track_caller]
    fn shows(&self, words: &str) {
        assert!(
            self.html.contains(&html::escape(words)),
            "HTML lacks {words}:\n{}",
            self.html
        );
        let plain = self.markdown.replace('\\', "");
        assert!(
            plain.contains(words),
            "Markdown lacks {words}:\n{}",
            self.markdown
        );
    }

    /// Expects a row of the Markdown's tables.
    #[track_caller]
    fn has_row(&self, row: &str) {
        let plain = self.markdown.replace('\\', "");
        assert!(
            plain.lines().any(|line| line == row),
            "{row} is missing:\n{}",
            self.markdown
        );
    }
}

#[test]
fn values_have_means_intervals_costs_and_the_papers_numbers() {
    let mut ratios = study(vec![
        value("50", &[0.60, 0.61, 0.62]),
        value("75", &[0.70, 0.71, 0.72]),
    ]);
    ratios.panel = Some('a');
    ratios.paper = Some("ViT-L/16 on ImageNet-1K; table 1a".to_owned());
    ratios.rule = Some("Half of the paper's.".to_owned());
    ratios.values[0].paper = BTreeMap::from([("linear".to_owned(), 60.0)]);
    ratios.values[1].runs.iter_mut().for_each(|run| {
        run.pretrain_s = Some(150.0);
        run.flops_per_image = Some(800_000_000);
    });
    let written = Written::new(vec![ratios]);
    written.has_row(
        "| mask ratio | seeds | knn k=20, % | linear, % | *the paper's linear, %* | loss \
         | pre-training | images/s | GFLOPs an image |",
    );
    // 2.5 = t(0.975, 2) / sqrt(3), and the deviation is 0.01.
    written.has_row(
        "| 50 | 3 | 51.0 ± 2.5 | 61.0 ± 2.5 | *60.0* | 0.4061 ± 0.0002 | 5.0 min (×1.00) | 1234 (×1.00) | 2.50 (×1.00) |",
    );
    written.has_row(
        "| 75 | 3 | **61.0 ± 2.5** | **71.0 ± 2.5** | *–* | 0.4071 ± 0.0002 | 2.5 min (×0.50) | 1234 (×1.00) | 0.800 (×0.32) |",
    );
    assert!(
        written
            .html
            .contains(r#"<td class="clear">71.0 ± 2.5</td>"#)
    );
    assert!(written.html.contains(r#"<td class="paper">60.0</td>"#));
    for words in [
        "Mask ratio (the paper's table 1a)",
        "Half of the paper's.",
        "linear: “75” is highest, 10.0 points above “50”; its interval overlaps no other, \
         so the seeds alone do not explain its lead.",
        "The columns of the paper are ViT-L/16 on ImageNet-1K; table 1a; they were not measured here.",
        "cargo xtask ablate --data photos",
        "mae-train pretrain --set mask.ratio=75",
        "[mask]\nratio = 75",
        "seed = 1",
    ] {
        written.shows(words);
    }
    written.has_row("| Mask ratio (the paper's table 1a) | 6 of 6 | **75 (61.0 ± 2.5)** | **75 (71.0 ± 2.5)** | *50 (60.0)* |");
}

#[test]
fn an_order_that_may_be_chance_is_not_bold() {
    let written = Written::new(vec![study(vec![
        value("25", &[0.50, 0.51, 0.52]),
        value("50", &[0.60, 0.61, 0.62]),
        value("75", &[0.61, 0.62, 0.63]),
    ])]);
    written.shows(
        "linear: “75” is highest, 1.0 points above “50”; its interval overlaps that of “50”, \
         so their order may be chance; it overlaps no other.",
    );
    assert!(!written.markdown.contains("**") && !written.html.contains(r#"class="clear""#));

    let equal = Written::new(vec![study(vec![
        value("25", &[0.50, 0.51]),
        value("50", &[0.50, 0.51]),
    ])]);
    equal.shows(
        "linear: “25” and “50” are highest, and alike; every other interval overlaps its own",
    );
}

#[test]
fn one_seed_has_no_interval() {
    let written = Written::new(vec![study(vec![value("25", &[0.5]), value("50", &[0.6])])]);
    written.shows(
        "linear: “50” is highest, 10.0 points above “25”; without two intervals, that may be chance.",
    );
    written.has_row(
        "| 50 | 1 | 50.0 | 60.0 | 0.4060 | 5.0 min (×1.00) | 1234 (×1.00) | 2.50 (×1.00) |",
    );
    assert!(!written.markdown.contains("**"));
}

#[test]
fn unfinished_and_failed_runs_are_told_and_not_counted() {
    let mut values = vec![
        value("25", &[0.5, 0.5, 0.9]),
        value("50", &[0.6, 0.9]),
        value("75", &[0.9]),
    ];
    values[0].runs[2].outcome = Outcome::Unfinished;
    values[1].runs[1].outcome = Outcome::Failed("the loss is not finite".to_owned());
    values[2].runs[0] = RunReport {
        outcome: Outcome::Unfinished,
        scores: BTreeMap::new(),
        loss: None,
        pretrain_s: None,
        eval_s: None,
        images_per_s: None,
        flops_per_image: None,
        ..run(1, 0.0)
    };
    let written = Written::new(vec![study(values)]);
    written.has_row(
        "| 25 | 2 of 3 | 40.0 ± <0.1 | 50.0 ± <0.1 | 0.4050 ± <0.0001 | 5.0 min (×1.00) | 1234 (×1.00) | 2.50 (×1.00) |",
    );
    written.has_row("| 50 | 1 of 2, 1 failed | 50.0 | 60.0 | 0.4060 | 5.0 min (×1.00) | 1234 (×1.00) | 2.50 (×1.00) |");
    written.has_row("| 75 | 0 of 1 | – | – | – | – | – | – |");
    written.shows("“50”, seed 2, failed: the loss is not finite (runs/seed-2).");
    assert!(!written.html.contains("NaN") && !written.markdown.contains("NaN"));

    // Nothing at all yet.
    let mut values = vec![value("25", &[0.5])];
    values[0].runs[0].outcome = Outcome::Unfinished;
    let written = Written::new(vec![study(values), study(Vec::new())]);
    written.has_row("| 25 | 0 of 1 |");
    assert!(!written.html.contains("<svg"));
}

#[test]
fn losses_of_different_targets_are_not_compared() {
    let mut targets = study(vec![value("pixels", &[0.5]), value("tokens", &[0.6])]);
    let words = "so a lower one is no better.";
    assert!(!Written::new(vec![targets.clone()]).markdown.contains(words));
    targets.loss_comparable = false;
    let written = Written::new(vec![targets]);
    written.shows(words);
    written.shows("loss (not comparable)");
}

#[test]
fn words_of_the_user_are_no_markup() {
    let nasty = "<script>alert(1)</script> & \"a|b\" *c* ```";
    let mut report = report(vec![study(vec![value(nasty, &[0.5]), value("b", &[0.6])])]);
    for words in [&mut report.title, &mut report.machine, &mut report.command] {
        *words = nasty.to_owned();
    }
    report.base_config = format!("{nasty}\n</details>\n```\n");
    report.studies[0].values[0].config = format!("````\n{nasty}");
    report.studies[0].numeric = false;
    let written = Written::of(&report);
    assert!(!written.html.contains("<script") && written.html.contains("&lt;script&gt;"));
    let row = r#"| \<script\>alert(1)\</script\> \& "a\|b" \*c\* \`\`\` | 1 |"#;
    assert!(written.markdown.contains(row), "{}", written.markdown);
    assert!(written.markdown.contains("`````toml\n````\n<script>"));
    let chart = fs::read_to_string(written.folder.path().join("charts/mask-ratio.svg")).unwrap();
    assert!(chart.contains("&lt;script&gt;alert(1)") && !chart.contains("<script"));
}

#[test]
fn each_line_holds_a_run_exactly() {
    let mut ratios = study(vec![value("50", &[0.1 + 0.2, 1.0 / 3.0])]);
    ratios.panel = Some('a');
    ratios.values[0].paper = BTreeMap::from([("finetune".to_owned(), 84.9)]);
    ratios.values[0].runs[1].outcome = Outcome::Failed("no\nspace".to_owned());
    ratios.values[0].runs[1].loss = None;
    let written = Written::new(vec![ratios.clone()]);
    let value = &ratios.values[0];
    let expect = value.runs.iter().map(|run| Line {
        study: "mask-ratio".to_owned(),
        panel: Some('a'),
        value: "50".to_owned(),
        number: Some(50.0),
        settings: value.settings.clone(),
        paper: value.paper.clone(),
        run: run.clone(),
    });
    assert_eq!(written.lines, expect.collect::<Vec<_>>());
}

#[test]
fn charts_and_pictures_are_beside_the_text_and_within_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("reconstructions.png");
    let mut encoder = png::Encoder::new(fs::File::create(&picture).unwrap(), 2, 1);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[9; 6]).unwrap();
    writer.finish().unwrap();
    let broken = folder.path().join("broken.png");
    fs::write(&broken, b"half a file").unwrap();

    let mut ratios = study(vec![
        value("25", &[0.5]),
        value("50", &[0.6]),
        value("75", &[0.6]),
    ]);
    ratios.paper = Some("ViT-L/16".to_owned());
    ratios.values[1].picture = Some(picture);
    ratios.values[2].picture = Some(broken);
    for (value, paper) in ratios.values.iter_mut().zip([70.0, 73.0, 73.5]) {
        value.paper = BTreeMap::from([("linear".to_owned(), paper)]);
    }
    let written = Written::new(vec![ratios]);
    let exists = |name: &str| written.folder.path().join(name).exists();
    for file in [
        "charts/mask-ratio.svg",
        "charts/mask-ratio-paper.svg",
        "pictures/mask-ratio-2.png",
    ] {
        assert!(exists(file) && written.markdown.contains(file), "{file}");
    }
    assert_eq!(written.html.matches("<svg").count(), 2);
    assert_eq!(
        written
            .html
            .matches("src=\"data:image/png;base64,iVBOR")
            .count(),
        1
    );
    // It loads nothing.
    for reference in ["src=\"pictures", "href=\"http", "@import", "url("] {
        assert!(!written.html.contains(reference), "{reference}");
    }
    written.shows("broken.png cannot be shown:");
}

#[test]
fn ten_values_with_long_names_are_shown() {
    let name =
        |i: usize| format!("{i}: a target of many words, such as normalised patches of the image");
    let values: Vec<_> = (0..10)
        .map(|i| value(&name(i), &[0.5, 0.51, 0.52]))
        .collect();
    let mut targets = study(values);
    targets.numeric = false;
    let written = Written::new(vec![targets]);
    for i in 0..10 {
        written.shows(&name(i));
    }
    assert_eq!(written.lines.len(), 30);
    let chart = fs::read_to_string(written.folder.path().join("charts/mask-ratio.svg")).unwrap();
    assert_eq!(chart.matches("…").count(), 10);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = write(&report(Vec::new()), Path::new(&file)).unwrap_err();
    assert!(format!("{error:#}").contains("file"), "{error:#}");
}
