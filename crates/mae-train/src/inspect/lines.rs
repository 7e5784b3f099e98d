//! Facts as lines of words.

use std::fmt::Write;

/// Aligned lines: what a fact is about, and the fact.
#[derive(Debug, Default)]
pub struct Lines(String);

/// Letters of what a fact is about.
const LABEL: usize = 14;

impl Lines {
    /// A line by itself.
    pub fn line(&mut self, words: &str) -> &mut Self {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{words}");
        self
    }

    /// A fact.
    pub fn fact(&mut self, label: &str, fact: impl AsRef<str>) -> &mut Self {
        self.line(&format!("{label:LABEL$}{}", fact.as_ref()))
    }

    /// The first `most` of `items` below a fact, and how many more there are.
    pub fn items<T>(
        &mut self,
        items: &[T],
        most: usize,
        words: impl Fn(&T) -> String,
    ) -> &mut Self {
        for item in items.iter().take(most) {
            self.line(&format!("  {}", words(item)));
        }
        if items.len() > most {
            self.line(&format!("  and {} more", items.len() - most));
        }
        self
    }

    /// All of them.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// "1.5 GB".
pub fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1_000_000 => (1e3, "kB"),
        1_000_000..1_000_000_000 => (1e6, "MB"),
        _ => (1e9, "GB"),
    };
    format!("{:.1} {name}", bytes as f64 / unit)
}

/// "1 h 5 min", "12.5 s".
pub fn duration(seconds: f64) -> String {
    match seconds {
        ..60.0 => format!("{seconds:.1} s"),
        ..3600.0 => format!(
            "{} min {:.0} s",
            (seconds / 60.0).floor(),
            (seconds % 60.0).floor()
        ),
        _ => format!(
            "{} h {:.0} min",
            (seconds / 3600.0).floor(),
            (seconds % 3600.0 / 60.0).floor()
        ),
    }
}

/// "1 image", "2 images".
pub fn count(number: usize, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    }
}

/// Numbers with four digits after the point, one after the other.
pub fn numbers<'a>(values: impl IntoIterator<Item = &'a f64>) -> String {
    let words: Vec<String> = values.into_iter().map(|v| format!("{v:.4}")).collect();
    words.join(" ")
}
