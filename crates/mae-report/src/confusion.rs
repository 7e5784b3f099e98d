//! Which classes are taken for which.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::plot::{BLUE, DrawResult, INK, at, shortened, text, units};
use crate::{ReportError, write_atomic};

/// Side of the matrix, pixels.
const MATRIX: i32 = 640;
/// Room for the names of the classes, pixels.
const NAMES: i32 = 150;
const HEADER: i32 = 60;
/// Letters.
const LONGEST_NAME: usize = 18;
/// With more classes than this, cells are too small for numbers and names.
const MAX_NAMED: usize = 40;

/// Draws how many images of each class (rows) were taken for which (columns), as an SVG file.
///
/// A cell is the darker, the larger its share of its row; up to 40 classes are named and their cells numbered,
/// in percent of the row.
///
/// # Shapes
/// - `counts`: `[classes, classes]`, and `classes` names
///
/// # Errors
/// - [`ReportError::Plot`] if the picture cannot be drawn, or `counts` is not square over `classes`.
/// - [`ReportError::Io`] if the file cannot be written.
pub fn confusion_svg(
    path: &Path,
    classes: &[String],
    counts: &[Vec<u32>],
    title: &str,
) -> Result<(), ReportError> {
    let wrong = |reason: String| ReportError::Plot {
        path: path.to_owned(),
        reason,
    };
    let n = classes.len();
    if n == 0 || counts.len() != n || counts.iter().any(|row| row.len() != n) {
        return Err(wrong(format!("expected {n} x {n} counts, one row a class")));
    }
    let mut svg = String::new();
    draw(&mut svg, classes, counts, title).map_err(|error| wrong(error.to_string()))?;
    write_atomic(path, svg.as_bytes())
}

fn draw(svg: &mut String, classes: &[String], counts: &[Vec<u32>], title: &str) -> DrawResult {
    let n = classes.len();
    let named = n <= MAX_NAMED;
    let names = if named { NAMES } else { 30 };
    let side = units((names + MATRIX + 20) as u32);
    let root =
        SVGBackend::with_string(svg, (side, side + units(HEADER as u32))).into_drawing_area();
    root.fill(&WHITE)?;
    text(&root, title, (20, 24), 20, INK, HPos::Left)?;
    let axes = "rows: the true class; columns: what it was taken for; % of the row";
    text(&root, axes, (20, 48), 13, INK, HPos::Left)?;

    let (left, top) = (names, HEADER + names);
    let edge = |i: usize| MATRIX * i as i32 / n as i32;
    let letters = (MATRIX / n as i32 * 2 / 5).clamp(7, 14) as u32;
    for (row, cells) in counts.iter().enumerate() {
        let total = cells.iter().sum::<u32>().max(1);
        for (column, &count) in cells.iter().enumerate() {
            let share = f64::from(count) / f64::from(total);
            let (x0, x1) = (left + edge(column), left + edge(column + 1));
            let (y0, y1) = (top + edge(row), top + edge(row + 1));
            let cell = [at((x0, y0)), at((x1, y1))];
            root.draw(&Rectangle::new(cell, shade(share).filled()))?;
            if named && count > 0 {
                let color = if share > 0.5 { WHITE } else { INK };
                let words = format!("{:.0}", 100.0 * share);
                let middle = ((x0 + x1) / 2, (y0 + y1) / 2);
                text(&root, &words, middle, letters, color, HPos::Center)?;
            }
        }
        if named {
            let middle = (edge(row) + edge(row + 1)) / 2;
            let name = shortened(&classes[row], LONGEST_NAME);
            text(&root, &name, (left - 8, top + middle), 13, INK, HPos::Right)?;
            let style = ("sans-serif", f64::from(units(13)))
                .into_font()
                .transform(FontTransform::Rotate270)
                .color(&INK)
                .pos(Pos::new(HPos::Left, VPos::Center));
            root.draw_text(&name, &style, at((left + middle, top - 8)))?;
        }
    }
    root.present()?;
    Ok(())
}

/// White for 0, blue for 1.
fn shade(share: f64) -> RGBColor {
    let mix = |to: u8| (255.0 + (f64::from(to) - 255.0) * share) as u8;
    RGBColor(mix(BLUE.0), mix(BLUE.1), mix(BLUE.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("class {i}")).collect()
    }

    #[test]
    fn cells_and_names_are_drawn_and_many_classes_are_not_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("confusion.svg");
        confusion_svg(&path, &names(2), &[vec![3, 1], vec![0, 0]], "kNN").unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for words in ["75", "25", "class 1", "kNN"] {
            assert!(svg.contains(words), "{words}");
        }
        confusion_svg(&path, &names(50), &vec![vec![1; 50]; 50], "many").unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(!svg.contains("class 1"));
        assert!(svg.matches("<rect").count() >= 2500);
    }

    #[test]
    fn counts_of_another_shape_are_refused() {
        let path = Path::new("never-written.svg");
        let error =
            confusion_svg(path, &names(2), &[vec![1, 2, 3], vec![1, 2, 3]], "").unwrap_err();
        assert!(
            error.to_string().contains("expected 2 x 2 counts"),
            "{error}"
        );
    }
}
