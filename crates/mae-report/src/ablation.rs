//! What the values of a setting are worth.

mod style;

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::plot::axis::{Axis, Scale, is_drawable};
use crate::plot::{
    Canvas, DrawResult, GRID, INK, QUIET_INK, UNITS, at, font, shortened, shown, text, text_width,
    title_size, units,
};
use crate::{ReportError, write_atomic};
use style::Style;

/// Width of the picture, pixels.
const WIDTH: u32 = 640;
/// Height of the lines, pixels.
const LINES: u32 = 300;
/// Left and right of everything, pixels.
const MARGIN: i32 = 20;
/// The longest name of a row takes so much, pixels.
const MAX_NAME: i32 = 250;

/// Size of the letters, pixels.
const LETTERS: u32 = 13;

/// The same measures of each value of a setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Ablation {
    /// What is varied.
    pub title: String,
    /// What the values are, with the unit.
    pub axis: String,
    /// What the points measure, with the unit.
    pub measure: String,
    /// The values, in order.
    pub values: Vec<String>,
    /// How they are laid out.
    pub layout: Layout,
    /// What was measured.
    pub series: Vec<Series>,
}

/// How an [`Ablation`] is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Values side by side at equal distances, joined by lines: for numbers.
    Lines,
    /// A row for each value: for names, however long.
    Rows,
}

/// One measure of all values.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// As in the legend, if it has a point.
    pub name: String,
    /// One for each value; none where nothing was measured.
    pub points: Vec<Option<Point>>,
}

/// One measure of one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// In the middle.
    pub mean: f64,
    /// Half the length of its interval; none for a single measurement.
    pub half_width: Option<f64>,
}

/// Draws a mark for each point, with its interval, as an SVG file.
///
/// Series differ in shape, dashes and lightness as well as in colour, by their place: one without points takes
/// its place, so that charts of the same series look alike.
/// The axis shows the range of the points, so that it need not begin at zero.
/// Points that are not finite are left out.
///
/// # Errors
/// - [`ReportError::Plot`] if the picture cannot be drawn, or a series has not one point for each value.
/// - [`ReportError::Io`] if the file cannot be written.
pub fn ablation_svg(path: &Path, ablation: &Ablation) -> Result<(), ReportError> {
    let wrong = |reason: String| ReportError::Plot {
        path: path.to_owned(),
        reason,
    };
    let values = ablation.values.len();
    for Series { name, points } in &ablation.series {
        if points.len() != values {
            return Err(wrong(format!(
                "expected {values} points of {name}, one a value, found {}",
                points.len()
            )));
        }
    }
    let legend = Legend::new(&ablation.series);
    let body = match ablation.layout {
        Layout::Lines => LINES,
        Layout::Rows => 58 + values as u32 * (12 + 14 * ablation.series.len().max(1) as u32),
    };
    let height = legend.bottom + body;
    let mut svg = String::new();
    draw(&mut svg, ablation, &legend, height).map_err(|error| wrong(error.to_string()))?;
    write_atomic(path, shown(&svg, WIDTH, height).as_bytes())
}

fn draw(svg: &mut String, ablation: &Ablation, legend: &Legend, height: u32) -> DrawResult {
    let root = SVGBackend::with_string(svg, (units(WIDTH), units(height))).into_drawing_area();
    root.fill(&WHITE)?;
    let title = shortened(&ablation.title, usize::MAX);
    let size = title_size(&title, 16, WIDTH - 2 * MARGIN as u32);
    text(&root, &title, (MARGIN, 20), size, INK, HPos::Left)?;
    legend.draw(&root)?;

    let (_, body) = root.split_vertically(units(legend.bottom));
    let points = (ablation.series.iter()).flat_map(|series| series.points.iter().flatten());
    let measured = Axis::new(points.clone().flat_map(Point::ends), Scale::Linear);
    let letters = ("sans-serif", font(LETTERS)).into_font().color(&QUIET_INK);
    let mut builder = ChartBuilder::on(&body);
    builder
        .margin_right(units(MARGIN as u32))
        .margin_left(units(10))
        .margin_bottom(units(8))
        .x_label_area_size(units(44));
    let (x, y, names_width) = match ablation.layout {
        Layout::Lines => {
            let room = (WIDTH as usize - 100) / ablation.values.len().max(1);
            let names = names(&ablation.values, room as i32);
            (Axis::names(names), measured, 70)
        }
        Layout::Rows => {
            let names = names(&ablation.values, MAX_NAME);
            let widest = names.iter().map(|name| text_width(name, LETTERS)).max();
            let width = widest.unwrap_or(0) as u32 + MARGIN as u32 + 14;
            (measured, Axis::names(names).reversed(), width)
        }
    };
    let mut chart = builder
        .y_label_area_size(units(names_width))
        .build_cartesian_2d(x, y)?;
    let mut mesh = chart.configure_mesh();
    match ablation.layout {
        Layout::Lines => mesh
            .disable_x_mesh()
            .x_desc(shortened(&ablation.axis, 80))
            .y_desc(shortened(&ablation.measure, 40)),
        Layout::Rows => mesh
            .disable_y_mesh()
            .x_desc(shortened(&ablation.measure, 80)),
    };
    mesh.light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(UNITS))
        .axis_style(QUIET_INK.stroke_width(UNITS))
        .label_style(letters.clone())
        .axis_desc_style(letters)
        .draw()?;

    let count = ablation.series.len();
    for (index, series) in ablation.series.iter().enumerate() {
        let style = Style::of(index);
        // Beside each other, so that an interval does not hide another.
        let aside = (index as f64 - (count as f64 - 1.0) / 2.0)
            * match ablation.layout {
                Layout::Lines => 0.05,
                Layout::Rows => 0.8 / (count as f64 + 0.6),
            };
        let place = |value: usize, measured: f64| {
            let along = value as f64 + aside;
            chart.backend_coord(&match ablation.layout {
                Layout::Lines => (along, measured),
                Layout::Rows => (measured, along),
            })
        };
        let points = || {
            (series.points.iter().enumerate())
                .filter_map(|(value, point)| point.map(|point| (value, point)))
                .filter(|(_, point)| is_drawable(point.mean))
        };
        if ablation.layout == Layout::Lines {
            let points: Vec<_> = points().collect();
            // A value that is missing is a gap.
            for piece in points.chunk_by(|a, b| a.0 + 1 == b.0) {
                let line = piece.iter().map(|(value, point)| place(*value, point.mean));
                style.line(&root, line.collect())?;
            }
        }
        for (value, point) in points() {
            if let Some([low, high]) = point.interval() {
                style.interval(&root, place(value, low), place(value, high))?;
            }
        }
        for (value, point) in points() {
            style.mark(&root, place(value, point.mean))?;
        }
    }
    if !points.clone().any(|point| is_drawable(point.mean)) {
        let (x, y) = chart.plotting_area().get_pixel_range();
        let scale = UNITS as i32 * 2;
        let center = ((x.start + x.end) / scale, (y.start + y.end) / scale);
        text(&root, "no values yet", center, 14, QUIET_INK, HPos::Center)?;
    }
    root.present()?;
    Ok(())
}

/// Names that fit into `room` pixels each.
fn names(values: &[String], room: i32) -> Vec<String> {
    let letters = room / text_width("0", LETTERS).max(1);
    let short = |name: &String| shortened(name, letters.max(4) as usize);
    values.iter().map(short).collect()
}

impl Point {
    fn interval(&self) -> Option<[f64; 2]> {
        let half = self.half_width.filter(|&half| half >= 0.0)?;
        let ends = [self.mean - half, self.mean + half];
        ends.iter().all(|&end| is_drawable(end)).then_some(ends)
    }

    fn ends(&self) -> [f64; 2] {
        self.interval().unwrap_or([self.mean; 2])
    }
}

/// The names of the series, in as many lines as they need.
struct Legend {
    /// The look and the name of each, and where it begins, pixels.
    entries: Vec<(Style, String, (i32, i32))>,
    /// Pixels from the top of the picture.
    bottom: u32,
}

impl Legend {
    const SAMPLE: i32 = 40;
    const LINE: i32 = 22;

    fn new(series: &[Series]) -> Self {
        let (mut x, mut y) = (MARGIN, 46);
        let mut entries = Vec::new();
        for (index, series) in series.iter().enumerate() {
            if series.points.iter().all(Option::is_none) {
                continue;
            }
            let name = shortened(&series.name, 60);
            let width = Self::SAMPLE + 8 + text_width(&name, LETTERS);
            if x > MARGIN && x + width > WIDTH as i32 - MARGIN {
                (x, y) = (MARGIN, y + Self::LINE);
            }
            entries.push((Style::of(index), name, (x, y)));
            x += width + 16;
        }
        Self {
            entries,
            bottom: (y + Self::LINE) as u32,
        }
    }

    fn draw(&self, root: &Canvas) -> DrawResult {
        for &(style, ref name, (x, y)) in &self.entries {
            style.line(root, vec![at((x, y)), at((x + Self::SAMPLE, y))])?;
            style.mark(root, at((x + Self::SAMPLE / 2, y)))?;
            let place = (x + Self::SAMPLE + 8, y);
            text(root, name, place, LETTERS, INK, HPos::Left)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, means: &[f64], half_width: Option<f64>) -> Series {
        let point = |&mean: &f64| Some(Point { mean, half_width });
        Series {
            name: name.to_owned(),
            points: means.iter().map(point).collect(),
        }
    }

    fn ablation(values: &[&str], layout: Layout, series: Vec<Series>) -> Ablation {
        Ablation {
            title: "Mask ratio".to_owned(),
            axis: "mask ratio, %".to_owned(),
            measure: "top-1, %".to_owned(),
            values: values.iter().copied().map(String::from).collect(),
            layout,
            series,
        }
    }

    fn plot(ablation: &Ablation) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chart.svg");
        ablation_svg(&path, ablation).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with(r#"<svg width="640" height=""#), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        svg
    }

    /// Where circles are: across and down, in units of drawing.
    fn circles(svg: &str) -> Vec<(i32, i32)> {
        let number = |element: &str, key: &str| -> i32 {
            let rest = &element[element.find(&format!(" {key}=\"")).unwrap() + key.len() + 3..];
            rest[..rest.find('"').unwrap()].parse().unwrap()
        };
        (svg.split("<circle").skip(1))
            .map(|circle| (number(circle, "cx"), number(circle, "cy")))
            // The first two are the legend's; then each is drawn over its rim.
            .skip(2)
            .step_by(2)
            .collect()
    }

    #[test]
    fn marks_stand_where_their_values_are() {
        let svg = plot(&ablation(
            &["25", "50", "75"],
            Layout::Lines,
            vec![series("linear", &[10.0, 20.0, 30.0], None)],
        ));
        let [low, middle, high] = circles(&svg)[..] else {
            panic!("three marks were expected: {svg}");
        };
        assert!((middle.0 - low.0 - (high.0 - middle.0)).abs() <= 1 && low.0 < middle.0);
        assert!(low.1 > middle.1 && (low.1 - middle.1 - (middle.1 - high.1)).abs() <= 1);

        let svg = plot(&ablation(
            &["pixels", "tokens"],
            Layout::Rows,
            vec![series("linear", &[10.0, 30.0], None)],
        ));
        let [first, second] = circles(&svg)[..] else {
            panic!("two marks were expected: {svg}");
        };
        assert!(first.1 < second.1 && first.0 < second.0);
    }

    #[test]
    fn intervals_are_drawn_where_there_are_some() {
        let polylines = |half_width| {
            let series = vec![series("linear", &[10.0, 20.0], half_width)];
            plot(&ablation(&["a", "b"], Layout::Rows, series))
                .matches("<polyline")
                .count()
        };
        assert_eq!(polylines(Some(1.0)), polylines(None) + 6);
        assert_eq!(polylines(Some(f64::NAN)), polylines(None));
        assert_eq!(polylines(Some(f64::INFINITY)), polylines(None));
    }

    #[test]
    fn series_differ_in_shape_and_names_are_escaped() {
        let names = ["knn k=20", "linear", "partial:4", "a < b & c"];
        let all = (names.iter().enumerate())
            .map(|(i, name)| series(name, &[40.0 + i as f64; 2], Some(0.5)))
            .collect();
        let svg = plot(&ablation(&["<script>", "\u{1}50"], Layout::Lines, all));
        for words in [
            "knn k=20",
            "a &lt; b &amp; c",
            "&lt;script&gt;",
            "\n50\n",
            "mask ratio, %",
            "top-1, %",
            "Mask ratio",
        ] {
            assert!(svg.contains(words), "{words} is missing");
        }
        // Four in the legend and two of each; circles twice, for their rims.
        assert_eq!(svg.matches("<circle").count(), 2 * 3);
        assert_eq!(svg.matches("<polygon").count(), 3 * 2 * 3);
        assert!(!svg.contains("<script>") && !svg.contains('\u{1}'));
    }

    #[test]
    fn a_series_without_points_takes_its_place_only() {
        let mut knn = series("knn", &[1.0; 2], None);
        knn.points = vec![None; 2];
        let linear = series("linear", &[1.0, 2.0], None);
        let svg = plot(&ablation(&["a", "b"], Layout::Lines, vec![knn, linear]));
        assert!(!svg.contains("knn") && svg.contains("linear"));
        assert!(!svg.contains("<circle") && svg.contains("<polygon"));
    }

    #[test]
    fn odd_ablations_are_drawn() {
        for layout in [Layout::Lines, Layout::Rows] {
            assert!(plot(&ablation(&[], layout, vec![])).contains("no values yet"));
            let mut gaps = series("linear", &[1.0, f64::NAN, 3.0, f64::INFINITY], None);
            gaps.points[0] = None;
            let svg = plot(&ablation(&["a", "b", "c", "d"], layout, vec![gaps]));
            assert_eq!(circles(&svg).len(), 1);
            let long = "a name that is as long as a sentence, or longer";
            let values: Vec<_> = (0..10).map(|i| format!("{i} {long}")).collect();
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            let many = (0..6)
                .map(|i| series(&format!("protocol {i}"), &[f64::from(i); 10], Some(0.1)))
                .collect();
            let svg = plot(&ablation(&values, layout, many));
            assert!(svg.contains("protocol 5") && svg.contains('…') && !svg.contains(long));
        }
    }

    #[test]
    fn a_series_has_one_point_a_value() {
        let ablation = ablation(
            &["a"],
            Layout::Rows,
            vec![series("linear", &[1.0; 2], None)],
        );
        let error = ablation_svg(Path::new("never-written.svg"), &ablation).unwrap_err();
        let expect = "expected 1 points of linear, one a value, found 2";
        assert!(error.to_string().contains(expect), "{error}");
    }
}
