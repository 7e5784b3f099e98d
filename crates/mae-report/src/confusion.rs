//! Which classes are taken for which.

mod counts;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub use counts::Confusion;

use crate::plot::{BLUE, DrawResult, INK, at, shortened, text, units};
use crate::{ReportError, write_atomic};

/// Side of the matrix, pixels.
const MATRIX: i32 = 640;
/// Room for the names of the classes, pixels.
const NAMES: i32 = 150;
const HEADER: i32 = 76;
/// Letters.
const LONGEST_NAME: usize = 18;
/// With more classes than this, cells are too small for numbers and names.
const MAX_NAMED: usize = 40;
/// With more classes than this, cells are too small to be seen.
const MAX_DRAWN: usize = 100;

/// Draws how many images of each class (rows) were taken for which (columns), as an SVG file.
///
/// A cell is the darker, the larger its share of its row; up to 40 classes are named and their cells numbered,
/// in percent of the row.
/// Of more than 100 classes, those are drawn that occur, and of more than 100 that occur 40; the picture says so.
/// The 40 are those of the pairs that were confused most often, in either direction, the worst pair first; where there
/// are not as many mistakes, then those of the most images.
///
/// # Errors
/// - [`ReportError::Plot`] if the picture cannot be drawn, or `confusion` has a class that `classes` does not name.
/// - [`ReportError::Io`] if the file cannot be written.
pub fn confusion_svg(
    path: &Path,
    classes: &[String],
    confusion: &Confusion,
    title: &str,
) -> Result<(), ReportError> {
    let wrong = |reason: String| ReportError::Plot {
        path: path.to_owned(),
        reason,
    };
    let last = confusion.cells().map(|(a, b, _)| a.max(b)).max();
    let named = classes.len();
    if named == 0 || last.is_some_and(|last| last as usize >= named) {
        let found = last.map_or("none".into(), |last| format!("class {last}"));
        return Err(wrong(format!(
            "expected counts of the {named} classes that have names, found {found}"
        )));
    }
    let mut svg = String::new();
    let (drawn, selection) = select(named, confusion);
    draw(&mut svg, classes, &drawn, &selection, confusion, title)
        .map_err(|error| wrong(error.to_string()))?;
    write_atomic(path, svg.as_bytes())
}

/// The classes to draw, in order, and which they are, in words; none where they are all.
fn select(classes: usize, confusion: &Confusion) -> (Vec<u32>, String) {
    let all = thousands(classes);
    if classes <= MAX_DRAWN {
        return ((0..classes as u32).collect(), String::new());
    }
    let occurring: BTreeSet<u32> = (confusion.cells())
        .flat_map(|(truth, taken, _)| [truth, taken])
        .collect();
    if (1..=MAX_DRAWN).contains(&occurring.len()) {
        let words = format!("{} of {all} classes: those that occur", occurring.len());
        return (occurring.into_iter().collect(), words);
    }
    let drawn = most_confused(classes, confusion);
    let words = format!(
        "{} of {all} classes: those most often taken for one another, the worst pair first; the others count in the %",
        drawn.len()
    );
    (drawn, words)
}

/// The classes of the worst mistakes, then the largest.
fn most_confused(classes: usize, confusion: &Confusion) -> Vec<u32> {
    let (mut pairs, mut images) = (BTreeMap::<_, u64>::new(), vec![0u64; classes]);
    for (truth, taken, count) in confusion.cells() {
        if truth != taken {
            let pair = (truth.min(taken), truth.max(taken));
            *pairs.entry(pair).or_default() += u64::from(count);
        }
        images[truth as usize] += u64::from(count);
    }
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by_key(|&(_, count)| Reverse(count));
    let mut largest: Vec<u32> = (0..classes as u32).collect();
    largest.sort_by_key(|&class| Reverse(images[class as usize]));

    let mut chosen = Vec::with_capacity(MAX_NAMED);
    let mut is_chosen = vec![false; classes];
    let candidates = (pairs.into_iter())
        .flat_map(|((a, b), _)| [a, b])
        .chain(largest);
    for class in candidates {
        if !std::mem::replace(&mut is_chosen[class as usize], true) {
            chosen.push(class);
        }
        if chosen.len() == MAX_NAMED {
            break;
        }
    }
    chosen
}

/// `12345` as `12,345`.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut words = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            words.push(',');
        }
        words.push(digit);
    }
    words
}

fn draw(
    svg: &mut String,
    classes: &[String],
    drawn: &[u32],
    selection: &str,
    confusion: &Confusion,
    title: &str,
) -> DrawResult {
    let n = drawn.len();
    let named = n <= MAX_NAMED;
    let names = if named { NAMES } else { 30 };
    let side = units((names + MATRIX + 20) as u32);
    let root =
        SVGBackend::with_string(svg, (side, side + units(HEADER as u32))).into_drawing_area();
    root.fill(&WHITE)?;
    text(&root, title, (20, 24), 20, INK, HPos::Left)?;
    let axes = "rows: the true class; columns: what it was taken for; % of the row";
    text(&root, axes, (20, 48), 13, INK, HPos::Left)?;
    text(&root, selection, (20, 68), 13, INK, HPos::Left)?;

    let (left, top) = (names, HEADER + names);
    let edge = |i: usize| MATRIX * i as i32 / n as i32;
    let letters = (MATRIX / n as i32 * 2 / 5).clamp(7, 14) as u32;
    let place: BTreeMap<u32, usize> = drawn.iter().copied().zip(0..).collect();
    let mut totals = vec![0u64; n];
    for (truth, _, count) in confusion.cells() {
        if let Some(&row) = place.get(&truth) {
            totals[row] += u64::from(count);
        }
    }
    for (truth, taken, count) in confusion.cells() {
        let (Some(&row), Some(&column)) = (place.get(&truth), place.get(&taken)) else {
            continue;
        };
        let share = f64::from(count) / totals[row] as f64;
        let (x0, x1) = (left + edge(column), left + edge(column + 1));
        let (y0, y1) = (top + edge(row), top + edge(row + 1));
        let cell = [at((x0, y0)), at((x1, y1))];
        root.draw(&Rectangle::new(cell, shade(share).filled()))?;
        if named {
            let color = if share > 0.5 { WHITE } else { INK };
            let words = format!("{:.0}", 100.0 * share);
            let middle = ((x0 + x1) / 2, (y0 + y1) / 2);
            text(&root, &words, middle, letters, color, HPos::Center)?;
        }
    }
    if named {
        for (row, &class) in drawn.iter().enumerate() {
            let middle = (edge(row) + edge(row + 1)) / 2;
            let name = shortened(&classes[class as usize], LONGEST_NAME);
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

    fn counts(rows: &[Vec<u32>]) -> Confusion {
        let mut confusion = Confusion::default();
        for (truth, row) in (0..).zip(rows) {
            for (taken, &images) in (0..).zip(row) {
                confusion.add(truth, taken, images);
            }
        }
        confusion
    }

    /// The picture, and what is written in it.
    fn picture(classes: usize, confusion: &Confusion) -> (String, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("confusion.svg");
        confusion_svg(&path, &names(classes), confusion, "kNN").unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        let texts = svg.split("</text>").filter_map(|part| {
            let words = part.rsplit('>').next()?.trim();
            (!words.is_empty()).then(|| words.to_owned())
        });
        let texts = texts.collect();
        (svg, texts)
    }

    #[test]
    fn cells_and_names_are_drawn_and_many_classes_are_not_named() {
        let (svg, _) = picture(2, &counts(&[vec![3, 1], vec![0, 0]]));
        for words in ["75", "25", "class 1", "kNN"] {
            assert!(svg.contains(words), "{words}");
        }
        let (svg, _) = picture(50, &counts(&vec![vec![1; 50]; 50]));
        assert!(!svg.contains("class 1"));
        assert!(svg.matches("<rect").count() >= 2500);
    }

    #[test]
    fn of_very_many_classes_the_most_confused_are_drawn() {
        let mut confusion = Confusion::default();
        for class in 0..10_000 {
            confusion.add(class, class, 4);
        }
        // 30 + 1 in both directions; 9 in one; and one class of many images that makes no mistake.
        confusion.add(7, 9_999, 30);
        confusion.add(9_999, 7, 1);
        confusion.add(5_000, 123, 9);
        confusion.add(777, 777, 90);
        let (svg, texts) = picture(10_000, &confusion);
        let rows: Vec<&String> = texts
            .iter()
            .filter(|text| text.starts_with("class "))
            .collect();
        let mut order: Vec<&str> = rows.iter().map(|row| row.as_str()).collect();
        order.dedup();
        assert_eq!(
            order[..6],
            [
                "class 7",
                "class 9999",
                "class 123",
                "class 5000",
                "class 777",
                "class 0"
            ]
        );
        assert_eq!(rows.len(), 2 * MAX_NAMED);
        let selection = "40 of 10,000 classes: those most often taken for one another";
        assert!(
            texts.iter().any(|text| text.starts_with(selection)),
            "{texts:?}"
        );
        // 30 of the 34 images of class 7.
        assert!(texts.iter().any(|text| text == "88"), "{texts:?}");
        assert!(svg.len() < 200_000, "{} bytes", svg.len());
    }

    #[test]
    fn of_numbers_with_gaps_the_classes_that_occur_are_drawn() {
        let mut confusion = Confusion::default();
        confusion.add(7, 7, 3);
        confusion.add(30_000, 7, 1);
        let (_, texts) = picture(30_001, &confusion);
        let selection = "2 of 30,001 classes: those that occur".to_owned();
        assert!(texts.contains(&selection), "{texts:?}");
        let rows = texts.iter().filter(|text| text.starts_with("class "));
        assert_eq!(rows.count(), 4);
        assert!(texts.contains(&"class 30000".to_owned()), "{texts:?}");
    }

    #[test]
    fn classes_without_a_name_are_refused() {
        let path = Path::new("never-written.svg");
        let counts = counts(&[vec![1, 2, 3], vec![1, 2, 3]]);
        let error = confusion_svg(path, &names(2), &counts, "").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("counts of the 2 classes that have names, found class 2"),
            "{error}"
        );
    }
}
