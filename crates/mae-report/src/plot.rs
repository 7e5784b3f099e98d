//! A picture of a run.

pub(crate) mod axis;
mod line;

use std::collections::BTreeMap;
use std::path::Path;

use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{Record, ReportError, write_atomic};
use axis::{Axis, Scale, is_drawable, thousands};

/// Of the picture, in pixels.
const WIDTH: u32 = 1120;
/// With one row of panels below the loss, in pixels.
const HEIGHT: u32 = 720;
/// Of a further row, in pixels.
const ROW: u32 = 244;

/// Units of drawing per pixel: coordinates are whole numbers, which show as stairs if there is but one unit
/// per pixel.
pub(crate) const UNITS: u32 = 2;

pub(crate) const INK: RGBColor = RGBColor(31, 41, 55);
pub(crate) const QUIET_INK: RGBColor = RGBColor(107, 114, 128);
pub(crate) const GRID: RGBColor = RGBColor(229, 231, 235);
const LIGHT_BLUE: RGBColor = RGBColor(147, 197, 253);
pub(crate) const BLUE: RGBColor = RGBColor(29, 78, 216);
pub(crate) const GREEN: RGBColor = RGBColor(5, 150, 105);
pub(crate) const ORANGE: RGBColor = RGBColor(237, 156, 66);

/// Apart in lightness, too.
const COLORS: [RGBColor; 3] = [BLUE, ORANGE, GREEN];

/// More dots than this on one line hide it.
const MAX_DOTS: usize = 60;

pub(crate) type Canvas<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
pub(crate) type DrawResult = Result<(), Box<dyn std::error::Error>>;

/// Draws the loss (each step thin, epoch means bold, that of held-out images beside them), the learning rate, the gradient
/// norm and, where they were measured, RankMe and the accuracy over the steps of a run.
///
/// Values that are not finite show as gaps, and the legend counts them.
/// The loss and the gradient norm have a logarithmic axis if they spread over orders of magnitude.
/// The file stays below 200 KB however long the run is, and is replaced as a whole, so that it can be looked
/// at while the run goes on.
///
/// # Errors
/// - [`ReportError::Plot`] if the picture cannot be drawn.
/// - [`ReportError::Io`] if the file cannot be written.
pub fn loss_svg(path: &Path, records: &[Record], title: &str) -> Result<(), ReportError> {
    let mut svg = String::new();
    let height =
        draw(&mut svg, &Curves::new(records), title).map_err(|error| ReportError::Plot {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    write_atomic(path, shown(&svg, WIDTH, height).as_bytes())
}

/// The picture of `width` x `height` pixels that was drawn in [`UNITS`].
pub(crate) fn shown(svg: &str, width: u32, height: u32) -> String {
    let drawn = format!(
        r#"<svg width="{}" height="{}""#,
        units(width),
        units(height)
    );
    let shown = format!(r#"<svg width="{width}" height="{height}" stroke-linejoin="round""#);
    svg.replacen(&drawn, &shown, 1)
}

/// What there is to draw, as (step, value) in the order of the steps.
#[derive(Default)]
struct Curves {
    loss: Vec<(f64, f64)>,
    epoch_loss: Vec<(f64, f64)>,
    lr: Vec<(f64, f64)>,
    grad_norm: Vec<(f64, f64)>,
    val_loss: Vec<(f64, f64)>,
    /// RankMe, by the tokens that it is of.
    rank_me: BTreeMap<String, Vec<(f64, f64)>>,
    /// Top-1 accuracy in percent, by protocol.
    accuracy: BTreeMap<String, Vec<(f64, f64)>>,
    /// The last record in words.
    state: String,
}

impl Curves {
    fn new(records: &[Record]) -> Self {
        let mut records: Vec<&Record> = records.iter().collect();
        records.sort_by_key(|record| record.step());
        let mut curves = Self::default();
        let mut last_epoch = None;
        for record in &records {
            let x = record.step() as f64;
            match **record {
                Record::Step {
                    loss,
                    lr,
                    grad_norm,
                    ..
                } => {
                    curves.loss.push((x, loss));
                    curves.lr.push((x, lr));
                    curves.grad_norm.push((x, grad_norm));
                }
                Record::Epoch { epoch, loss, .. } => {
                    curves.epoch_loss.push((x, loss));
                    last_epoch = Some((epoch, loss));
                }
                Record::Accuracy {
                    ref protocol, top1, ..
                } => {
                    let points = curves.accuracy.entry(protocol.clone()).or_default();
                    points.push((x, 100.0 * top1));
                }
                Record::Validation { val_loss, .. } => curves.val_loss.push((x, val_loss)),
                Record::Spectrum {
                    ref tokens,
                    rank_me,
                    ..
                } => {
                    let points = curves.rank_me.entry(tokens.clone()).or_default();
                    points.push((x, rank_me));
                }
                Record::Tokens { .. } => {}
            }
        }
        if let Some(record) = records.last() {
            curves.state = format!("step {}", thousands(record.step() as f64));
        }
        if let Some((epoch, loss)) = last_epoch {
            curves.state += &format!(", mean loss of epoch {epoch}: {loss:.4}");
        }
        curves
    }
}

/// Draws and returns the picture's height, in pixels.
fn draw(svg: &mut String, curves: &Curves, title: &str) -> Result<u32, Box<dyn std::error::Error>> {
    let single = |points, color, width| {
        [Line {
            name: "",
            points,
            color,
            width,
            dots: false,
        }]
    };
    let lr = single(&curves.lr, GREEN, 2);
    let grad_norm = single(&curves.grad_norm, ORANGE, 1);
    let accuracy = lines_of(&curves.accuracy);
    let rank_me = lines_of(&curves.rank_me);
    let mut panels = vec![
        Panel {
            name: "Learning rate",
            scale: Scale::FromZero,
            lines: &lr,
        },
        Panel {
            name: "Gradient norm",
            scale: Scale::Fitted,
            lines: &grad_norm,
        },
        Panel {
            name: "RankMe",
            scale: Scale::FromZero,
            lines: &rank_me,
        },
        Panel {
            name: "Top-1, %",
            scale: Scale::FromZero,
            lines: &accuracy,
        },
    ];
    // A probe has an accuracy but keeps no rates and norms.
    let is_probe = !accuracy.is_empty();
    panels.retain(|panel| match panel.lines {
        [] => false,
        lines => !is_probe || lines.iter().any(|line| !line.points.is_empty()),
    });
    let columns = if panels.len() == 4 { 2 } else { panels.len() };
    let rows = panels.len().div_ceil(columns);
    let height = HEIGHT + ROW * (rows as u32 - 1);

    let root = SVGBackend::with_string(svg, (WIDTH * UNITS, height * UNITS)).into_drawing_area();
    root.fill(&WHITE)?;
    let (header, body) = root.split_vertically(units(76));
    let title = shortened(title, usize::MAX);
    text(
        &header,
        &title,
        (24, 30),
        title_size(&title, 24, WIDTH - 48),
        INK,
        HPos::Left,
    )?;
    text(&header, &curves.state, (24, 58), 14, QUIET_INK, HPos::Left)?;

    let steps = curves
        .loss
        .iter()
        .chain(&curves.epoch_loss)
        .map(|point| point.0);
    let x = Axis::new(steps, Scale::Steps);
    let (upper, lower) = body.split_vertically(units(400));
    Panel {
        name: "Loss",
        scale: Scale::Fitted,
        lines: &[
            Line {
                name: "each step",
                points: &curves.loss,
                color: LIGHT_BLUE,
                width: 1,
                dots: false,
            },
            Line {
                name: "epoch mean",
                points: &curves.epoch_loss,
                color: BLUE,
                width: 3,
                dots: true,
            },
            Line {
                name: "held out",
                points: &curves.val_loss,
                color: ORANGE,
                width: 3,
                dots: true,
            },
        ],
    }
    .draw(&upper, &x)?;
    for (panel, area) in panels.iter().zip(lower.split_evenly((rows, columns))) {
        panel.draw(&area, &x)?;
    }
    root.present()?;
    Ok(height)
}

/// Curves that are told apart by their names.
fn lines_of(curves: &BTreeMap<String, Vec<(f64, f64)>>) -> Vec<Line<'_>> {
    (curves.iter().zip(COLORS.iter().cycle()))
        .map(|((name, points), &color)| Line {
            name,
            points,
            color,
            width: 2,
            dots: true,
        })
        .collect()
}

struct Line<'a> {
    /// As in the legend; empty if the panel has no other line.
    name: &'a str,
    points: &'a [(f64, f64)],
    color: RGBColor,
    /// In pixels.
    width: u32,
    dots: bool,
}

struct Panel<'a> {
    name: &'a str,
    scale: Scale,
    lines: &'a [Line<'a>],
}

impl Panel<'_> {
    fn draw(&self, area: &Canvas, x: &Axis) -> DrawResult {
        let (header, body) = area.split_vertically(units(30));
        text(&header, self.name, (24, 16), 16, INK, HPos::Left)?;
        self.draw_legend(&header)?;

        let y = Axis::new(
            self.lines
                .iter()
                .flat_map(|line| line.points)
                .map(|point| point.1),
            self.scale,
        );
        let mut chart = ChartBuilder::on(&body)
            .margin_right(units(40))
            .x_label_area_size(units(42))
            .y_label_area_size(units(76))
            .build_cartesian_2d(x.clone(), y)?;
        let labels = ("sans-serif", font(13)).into_font().color(&QUIET_INK);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.stroke_width(UNITS))
            .axis_style(QUIET_INK.stroke_width(UNITS))
            .label_style(labels.clone())
            .axis_desc_style(labels)
            .x_desc("Step")
            .draw()?;

        let mut empty = true;
        for line in self.lines {
            let style = line.color.stroke_width(line.width * UNITS);
            let dot = |point, radius| Circle::new(point, units(radius), line.color.filled());
            for piece in line::pieces(line.points, &x.range()) {
                empty = false;
                if line.dots && piece.len() <= MAX_DOTS {
                    chart.draw_series(piece.iter().map(|&point| dot(point, 4)))?;
                } else if let [point] = piece[..] {
                    // A line through one point would not be seen.
                    chart.draw_series([dot(point, line.width + 2)])?;
                }
                if piece.len() > 1 {
                    chart.draw_series([PathElement::new(piece, style)])?;
                }
            }
        }
        if empty {
            let (width, height) = body.dim_in_pixel();
            let center = (
                (width / UNITS / 2 + 18) as i32,
                (height / UNITS / 2 - 21) as i32,
            );
            text(&body, "no values yet", center, 14, QUIET_INK, HPos::Center)?;
        }
        Ok(())
    }

    /// Writes the names of the lines, from the right end of `header` to the left.
    fn draw_legend(&self, header: &Canvas) -> DrawResult {
        const SAMPLE: i32 = 24;
        let mut right = (header.dim_in_pixel().0 / UNITS) as i32 - 40;
        for line in self.lines.iter().rev() {
            let missing = line
                .points
                .iter()
                .filter(|point| !is_drawable(point.1))
                .count();
            let name = match missing {
                0 => line.name.to_owned(),
                _ => format!("{} ({} not finite)", line.name, thousands(missing as f64))
                    .trim()
                    .to_owned(),
            };
            if name.is_empty() || line.points.is_empty() {
                continue;
            }
            let start = right - text_width(&name, 13);
            text(header, &name, (start, 16), 13, INK, HPos::Left)?;
            let end = start - 8;
            let [from, to, middle] = [end - SAMPLE, end, end - SAMPLE / 2].map(|x| at((x, 16)));
            header.draw(&PathElement::new(
                [from, to],
                line.color.stroke_width((line.width * UNITS).max(4)),
            ))?;
            if line.dots {
                header.draw(&Circle::new(middle, units(4), line.color.filled()))?;
            }
            right = end - SAMPLE - 22;
        }
        Ok(())
    }
}

/// Writes `words` at `place`, in pixels, centred vertically there.
pub(crate) fn text(
    area: &Canvas,
    words: &str,
    place: (i32, i32),
    size: u32,
    color: RGBColor,
    side: HPos,
) -> DrawResult {
    let style = ("sans-serif", font(size))
        .into_font()
        .color(&color)
        .pos(Pos::new(side, VPos::Center));
    area.draw_text(words, &style, at(place))?;
    Ok(())
}

/// The size, up to `largest`, of a title that fits on one line of `width` pixels.
pub(crate) fn title_size(title: &str, largest: u32, width: u32) -> u32 {
    (8..=largest)
        .rev()
        .find(|&size| text_width(title, size) <= width as i32)
        .unwrap_or(8)
}

/// `words` without control characters, which have no place in XML, and with at most `longest` letters.
pub(crate) fn shortened(words: &str, longest: usize) -> String {
    let words: String = words.chars().filter(|c| !c.is_control()).collect();
    if words.chars().count() <= longest {
        return words;
    }
    words.chars().take(longest - 1).chain(['…']).collect()
}

/// About how wide `words` are, in pixels: the font is the reader's, so nobody knows.
pub(crate) fn text_width(words: &str, size: u32) -> i32 {
    (0.62 * f64::from(size) * words.chars().count() as f64) as i32
}

pub(crate) fn units(pixels: u32) -> u32 {
    pixels * UNITS
}

pub(crate) fn at((x, y): (i32, i32)) -> (i32, i32) {
    (x * UNITS as i32, y * UNITS as i32)
}

/// The size that plotters is to be told for letters of `pixels`: it divides by 1.24.
pub(crate) fn font(pixels: u32) -> f64 {
    f64::from(pixels * UNITS) * 1.24
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64, loss: f64) -> Record {
        Record::Step {
            step,
            epoch: 0.0,
            loss,
            lr: 1e-4,
            grad_norm: loss,
            images_per_s: 0.0,
            mfu: None,
            data_wait: 0.0,
            loss_scale: None,
            skipped: 0,
            elapsed_s: 0.0,
        }
    }

    fn epoch(epoch: u64, loss: f64) -> Record {
        Record::Epoch {
            epoch,
            step: 100 * epoch,
            loss,
            seconds: 1.0,
            broken_images: 0,
            flops_per_image: None,
        }
    }

    fn plot(records: &[Record], title: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.svg");
        loss_svg(&path, records, title).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with(
            r#"<svg width="1120" height="720" stroke-linejoin="round" viewBox="0 0 2240 1440""#
        ));
        assert!(svg.trim_end().ends_with("</svg>"));
        assert!(svg.len() < 200_000, "{} bytes", svg.len());
        svg
    }

    #[test]
    fn a_run_has_its_curves_and_names() {
        let records: Vec<_> = (1..=500)
            .map(|number| step(number, 1.0 / (number as f64).sqrt()))
            .chain((1..=5).map(|number| epoch(number, 0.4)))
            .collect();
        let svg = plot(&records, "tiny & <fast>");
        for words in [
            "tiny &amp; &lt;fast&gt;",
            "step 500, mean loss of epoch 5: 0.4000",
            "each step",
            "epoch mean",
            "Loss",
            "Learning rate",
            "Gradient norm",
            "Step",
        ] {
            assert!(svg.contains(words), "{words} is missing");
        }
        // Two lines of the loss, one each of the others, and two samples in the legend, among axes.
        assert!(svg.matches("<polyline").count() >= 6);
        assert!(!svg.contains("NaN") && !svg.contains("not finite"));
    }

    #[test]
    fn what_is_measured_on_the_way_has_lines_of_its_own() {
        let accuracy = Record::Accuracy {
            epoch: 1,
            step: 100,
            protocol: "knn k=20".into(),
            top1: 0.5,
            top5: 0.9,
        };
        let spectrum = |tokens: &str| Record::Spectrum {
            epoch: 1,
            step: 100,
            tokens: tokens.into(),
            rank_me: 12.0,
            effective_rank: 13.0,
            alpha: None,
        };
        let validation = Record::Validation {
            epoch: 1,
            step: 100,
            val_loss: 0.75,
        };
        let records = [step(50, 1.0), epoch(1, 0.9), validation];
        let svg = plot(&records, "held out");
        assert!(svg.contains("held out") && !svg.contains("RankMe"));
        let records = [&records[..], &[spectrum("cls"), spectrum("mean")]].concat();
        let svg = plot(&records, "without labels");
        for words in ["RankMe", "cls", "mean", "Gradient norm"] {
            assert!(svg.contains(words), "{words} is missing");
        }
        // Four panels are two rows.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.svg");
        loss_svg(&path, &[&records[..], &[accuracy]].concat(), "with labels").unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with(r#"<svg width="1120" height="964""#));
        assert!(svg.contains("Top-1") && svg.contains("Learning rate"));
    }

    #[test]
    fn odd_runs_are_drawn() {
        assert!(plot(&[], "empty").contains("no values yet"));
        assert!(plot(&[step(1, 0.5)], "one step").contains("<circle"));
        plot(&[step(0, 0.0)], "");
        plot(&[epoch(1, 0.5)], "one epoch");
        plot(&[step(u64::MAX, f64::MAX), step(0, f64::MIN)], "far");
        plot(
            &(1..100)
                .map(|number| step(number, 0.25))
                .collect::<Vec<_>>(),
            "all equal",
        );
        let svg = plot(
            &[
                step(1, f64::NAN),
                step(2, f64::INFINITY),
                epoch(1, f64::NAN),
            ],
            "\u{1} all lost \u{8}",
        );
        assert!(svg.contains("no values yet") && svg.contains("each step (2 not finite)"));
        assert!(!svg.contains(['\u{1}', '\u{8}']));
    }

    #[test]
    fn the_longest_run_stays_small() {
        let noise = |number: u64| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64;
        let steps = (0..200_000).map(|number| step(number, noise(number)));
        let records: Vec<_> = steps
            .chain((1..=2000).map(|number| epoch(number, noise(number))))
            .collect();
        plot(&records, &"a long title ".repeat(20));
        // Every other pixel is a gap.
        let gaps = |number: u64| {
            if number.is_multiple_of(2) {
                noise(number)
            } else {
                f64::NAN
            }
        };
        let records: Vec<_> = (0..601)
            .map(|number| step(number, gaps(number)))
            .chain((0..6).map(|n| epoch(n, gaps(n))))
            .collect();
        plot(&records, "gaps");
    }
}
