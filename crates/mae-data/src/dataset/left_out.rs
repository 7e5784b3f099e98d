use std::fmt;
use std::path::{Path, PathBuf};

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
            1 => lines.push(format!("and 1 more kind, {files} in all")),
            kinds => lines.push(format!("and {kinds} more kinds, {files} in all")),
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
        match count {
            1 => write!(f, "left out 1 {}, {example}: {reason}", singular(what)),
            _ => write!(f, "left out {count} {what}, the first {example}: {reason}"),
        }
    }
}

/// "file that holds heic" of "files that hold heic": the nouns before any preposition, and the verb after them.
fn singular(what: &str) -> String {
    const STOPS: [&str; 8] = [
        "after", "among", "beside", "of", "that", "to", "with", "without",
    ];
    const NOUNS: [&str; 5] = ["files", "folders", "images", "links", "bytes"];
    let mut is_subject = true;
    let words = what.split(' ').map(|word| {
        is_subject &= !STOPS.contains(&word);
        match word {
            "begin" => "begins",
            "hold" => "holds",
            "lead" => "leads",
            _ if is_subject && NOUNS.contains(&word) => &word[..word.len() - 1],
            _ => word,
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// How much it matters that a file is left out: what matters most is told first.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// It may be an image that somebody misses.
    Missed,
    /// It lies beside images: labels, notes, checksums, a system's own files.
    Beside,
}

/// Counts what is left out, by what it is.
#[derive(Debug, Default)]
pub(super) struct Tally {
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    weight: Weight,
    count: usize,
    what: String,
    first: PathBuf,
    reason: String,
}

impl Tally {
    /// More kinds of files than this are one: names can have as many endings as there are files.
    const MOST_GROUPS: usize = 48;
    const OTHERS: &'static str = "files of still other endings";

    /// Counts the file or folder `path`, one of `what`.
    pub(super) fn add(&mut self, weight: Weight, what: &str, reason: &str, path: &Path) {
        let place = (self.groups.iter())
            .position(|group| group.what == what && group.reason == reason)
            .or_else(|| {
                let is_full = self.groups.len() == Self::MOST_GROUPS;
                is_full.then_some(Self::MOST_GROUPS - 1)
            });
        let Some(place) = place else {
            let is_last = self.groups.len() == Self::MOST_GROUPS - 1;
            let (what, reason) = match is_last {
                true => (Self::OTHERS, "no endings of images"),
                false => (what, reason),
            };
            self.groups.push(Group {
                weight,
                count: 1,
                what: what.to_owned(),
                first: path.to_owned(),
                reason: reason.to_owned(),
            });
            return;
        };
        let group = &mut self.groups[place];
        group.count += 1;
        // The same one on every machine, in whatever order files are listed.
        if path < group.first.as_path() {
            path.clone_into(&mut group.first);
        }
    }

    /// What was counted: what may be missed before what is not, the most files first.
    pub(super) fn into_list(mut self) -> Vec<LeftOut> {
        self.groups.sort_by(|a, b| {
            let key = |group: &Group| (group.weight, std::cmp::Reverse(group.count));
            key(a).cmp(&key(b)).then_with(|| a.what.cmp(&b.what))
        });
        (self.groups.into_iter())
            .map(|group| LeftOut {
                count: group.count,
                what: group.what,
                example: group.first.display().to_string(),
                reason: group.reason,
            })
            .collect()
    }

    /// Why the files that matter most are left out; `None` if none of them does.
    pub(super) fn remedy(&self) -> Option<&str> {
        let missed = |group: &&Group| group.weight == Weight::Missed;
        let most = (self.groups.iter().filter(missed)).max_by_key(|group| group.count)?;
        Some(&most.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_missed_comes_first_with_its_first_name() {
        let mut tally = Tally::default();
        for name in ["c.txt", "b.txt", "d.txt"] {
            tally.add(Weight::Beside, ".txt files", "text", name.as_ref());
        }
        for name in ["2.heic", "1.heic"] {
            tally.add(Weight::Missed, ".heic files", "not read", name.as_ref());
        }
        assert_eq!(tally.remedy(), Some("not read"));
        let told: Vec<String> = tally.into_list().iter().map(LeftOut::to_string).collect();
        assert_eq!(
            told,
            [
                "left out 2 .heic files, the first 1.heic: not read",
                "left out 3 .txt files, the first b.txt: text"
            ]
        );
    }

    #[test]
    fn as_many_endings_as_files_are_a_bounded_list() {
        let mut tally = Tally::default();
        for i in 0..1000 {
            let (what, name) = (format!(".e{i} files"), format!("a.e{i}"));
            tally.add(Weight::Missed, &what, "unknown", name.as_ref());
        }
        let list = tally.into_list();
        assert_eq!(list.len(), Tally::MOST_GROUPS);
        let total: usize = list.iter().map(|group| group.count).sum();
        assert_eq!((total, list[0].what.as_str()), (1000, Tally::OTHERS));
    }

    #[test]
    fn one_is_told_as_one() {
        for (of_many, of_one) in [
            (".heic files", ".heic file"),
            (
                "files without an ending that hold heic",
                "file without an ending that holds heic",
            ),
            (
                "images with the key of another (.jpg: 1)",
                "image with the key of another (.jpg: 1)",
            ),
            (
                "links or sparse files (.jpg: 1)",
                "link or sparse file (.jpg: 1)",
            ),
            ("folders @eaDir", "folder @eaDir"),
            ("files beside the tar files", "file beside the tar files"),
        ] {
            assert_eq!(singular(of_many), of_one);
        }
    }

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
        assert_eq!(lines[0], "left out 1 .1 file, a.1: not read");
        assert_eq!(lines[8], "and 3 more kinds, 30 in all");
        let all_but_two = LeftOut::lines(&kinds[..9]);
        assert_eq!(all_but_two[8], "and 1 more kind, 9 in all");
        assert_eq!(LeftOut::lines(&kinds[..8]).len(), 8);
        assert!(LeftOut::lines(&[]).is_empty());
    }
}
