use std::fmt;

use serde::Serialize;

/// Files at the place of a data set that are no images of it, told so that none is lost in silence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// How many there are.
    pub count: usize,
    /// What they are, as it follows their number: ".heic files", "thumbnails in @eaDir".
    pub what: String,
    /// The name of the first.
    pub example: String,
    /// Why they are left out, and what can be done: "heic is not read; convert them to jpeg".
    pub reason: String,
}

impl LeftOut {
    /// Several kinds as lines to print; of many, the first ones, and how many more there are.
    pub fn lines(kinds: &[LeftOut]) -> Vec<String> {
        const SHOWN: usize = 8;
        let (shown, more) = kinds.split_at(kinds.len().min(SHOWN));
        let mut lines: Vec<String> = shown.iter().map(LeftOut::to_string).collect();
        let files: usize = more.iter().map(|kind| kind.count).sum();
        match more.len() {
            0 => {}
            1 => lines.push(format!("and 1 more kind, of {files}")),
            kinds => lines.push(format!("and {kinds} more kinds, of {files}")),
        }
        lines
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeftOut {
            count,
            what,
            example,
            reason,
        } = self;
        write!(f, "left out {count} {what}, the first {example}: {reason}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_kinds_the_first_are_told() {
        let kinds: Vec<LeftOut> = (1..=11)
            .map(|count| LeftOut {
                count,
                what: format!(".{count} files"),
                example: format!("a.{count}"),
                reason: "not read".to_owned(),
            })
            .collect();
        let lines = LeftOut::lines(&kinds);
        assert_eq!(lines.len(), 9);
        assert_eq!(lines[0], "left out 1 .1 files, the first a.1: not read");
        assert_eq!(lines[8], "and 3 more kinds, of 30");
        assert_eq!(LeftOut::lines(&kinds[..9])[8], "and 1 more kind, of 9");
        assert_eq!(LeftOut::lines(&kinds[..8]).len(), 8);
        assert!(LeftOut::lines(&[]).is_empty());
    }
}
