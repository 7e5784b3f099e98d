//! What a report shows, with its charts and pictures drawn: the same for every way to show it.

use std::{fs, io::Cursor, path::Path};

use anyhow::{Context, Result};
use mae_report::{Ablation, Layout, Point, Series, ablation_svg, write_atomic};

use super::{
    Report, StudyReport,
    findings::sentences,
    statistics::Estimate,
    table::{PAPER, Table, protocols, scores},
};

/// A report, ready to be shown.
pub struct Page<'a> {
    pub report: &'a Report,
    pub overview: Table,
    pub sections: Vec<Section<'a>>,
}

/// A study, ready to be shown.
pub struct Section<'a> {
    pub study: &'a StudyReport,
    /// Where links lead.
    pub id: String,
    pub table: Table,
    pub sentences: Vec<String>,
    pub charts: Vec<Chart>,
    pub pictures: Vec<Picture>,
}

/// A drawn chart.
pub struct Chart {
    /// Relative to the report's folder.
    pub file: String,
    /// What it shows, in words.
    pub caption: String,
    pub svg: String,
}

/// A value's reconstructions.
pub struct Picture {
    /// Relative to the report's folder.
    pub file: String,
    pub label: String,
    pub png: Vec<u8>,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl<'a> Page<'a> {
    /// Draws charts and pictures into `folder`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn draw(report: &'a Report, folder: &Path) -> Result<Self> {
        for name in ["charts", "pictures"] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder)
                .with_context(|| format!("creating {}", folder.display()))?;
        }
        let sections = report.studies.iter().map(|study| section(study, folder));
        Ok(Self {
            report,
            overview: Table::overview(report),
            sections: sections.collect::<Result<_>>()?,
        })
    }
}

/// A PNG file, and its size.
fn read(path: &Path) -> Result<(Vec<u8>, (u32, u32))> {
    let png = fs::read(path)?;
    let size = png::Decoder::new(Cursor::new(&png))
        .read_info()?
        .info()
        .size();
    Ok((png, size))
}

fn section<'a>(study: &'a StudyReport, folder: &Path) -> Result<Section<'a>> {
    let id = slug(&study.name);
    let mut sentences = sentences(study);
    let mut pictures = Vec::new();
    for (index, value) in study.values.iter().enumerate() {
        let Some(source) = &value.picture else {
            continue;
        };
        match read(source) {
            Ok((png, (width, height))) => {
                let file = format!("pictures/{id}-{}.png", index + 1);
                write_atomic(&folder.join(&file), &png)?;
                pictures.push(Picture {
                    file,
                    label: value.label.clone(),
                    png,
                    width,
                    height,
                });
            }
            // The numbers are worth showing without it.
            Err(error) => sentences.push(format!(
                "The picture {} cannot be shown: {error:#}.",
                source.display()
            )),
        }
    }
    let charts = [measured(study), papers(study)].into_iter().flatten();
    let charts = charts.map(|(suffix, caption, ablation)| -> Result<Chart> {
        let file = format!("charts/{id}{suffix}.svg");
        let path = folder.join(&file);
        ablation_svg(&path, &ablation)?;
        let svg =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Chart { file, caption, svg })
    });
    Ok(Section {
        table: Table::of(study),
        charts: charts.collect::<Result<_>>()?,
        study,
        id,
        sentences,
        pictures,
    })
}

type Drawing = (&'static str, String, Ablation);

/// What was measured here, if anything was.
fn measured(study: &StudyReport) -> Option<Drawing> {
    let point = |estimate: Estimate| Point {
        mean: 100.0 * estimate.mean,
        half_width: estimate.half_width.map(|half| 100.0 * half),
    };
    let series = protocols(study).into_iter().map(|protocol| Series {
        points: (scores(study, &protocol).into_iter())
            .map(|estimate| estimate.map(point))
            .collect(),
        name: protocol,
    });
    let caption = format!("Measured here: top-1 accuracy by {}.", study.axis);
    let series: Vec<_> = series.collect();
    (!series.is_empty()).then(|| ("", caption, ablation(study, "measured here", series)))
}

/// The paper's values, if there are two, in the colours of those measured here.
fn papers(study: &StudyReport) -> Option<Drawing> {
    let source = study.paper.as_ref()?;
    let mut names = protocols(study);
    for protocol in PAPER {
        if !names.iter().any(|name| name == protocol) {
            names.push(protocol.to_owned());
        }
    }
    let series: Vec<Series> = (names.into_iter())
        .map(|name| {
            let points = study.values.iter().map(|value| {
                value.paper.get(&name).map(|&mean| Point {
                    mean,
                    half_width: None,
                })
            });
            Series {
                points: points.collect(),
                name,
            }
        })
        .collect();
    let drawn = |series: &Series| series.points.iter().flatten().count() > 1;
    let caption = format!("The paper's, not measured here: {source}.");
    (series.iter().any(drawn)).then(|| ("-paper", caption, ablation(study, "the paper's", series)))
}

fn ablation(study: &StudyReport, whose: &str, series: Vec<Series>) -> Ablation {
    Ablation {
        title: format!("{}: {whose}", study.title),
        axis: study.axis.clone(),
        measure: "top-1, %".to_owned(),
        values: study
            .values
            .iter()
            .map(|value| value.label.clone())
            .collect(),
        layout: if study.numeric {
            Layout::Lines
        } else {
            Layout::Rows
        },
        series,
    }
}

/// `name` as part of the name of a file and of a link.
fn slug(name: &str) -> String {
    let letter = |c: char| match c {
        'a'..='z' | '0'..='9' | '-' => c,
        _ => '-',
    };
    name.to_lowercase().chars().map(letter).collect()
}
