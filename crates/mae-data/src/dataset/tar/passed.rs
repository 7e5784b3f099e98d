//! What is in shards, or beside them, and is no image of the data set.

use std::collections::BTreeMap;

use crate::dataset::LeftOut;

/// Why something is no image of a data set of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// An image whose name has more dots than that before its ending.
    Dots,
    /// An image whose key is that of another.
    SameKey,
    /// An image of a format that is not read.
    Format,
    /// A link or a sparse file.
    Link,
    Hidden,
    /// A file with a label, without an image.
    Orphan,
    /// A file of anything else.
    Other,
    /// Bytes after an archive that are none.
    Tail,
    /// A compressed shard.
    Compressed,
    /// A file that is no shard.
    NoShard,
}

/// How often what was passed over, and the first name, by reason and ending.
#[derive(Debug, Default)]
pub(super) struct Passed(BTreeMap<(Why, String), (usize, String)>);

impl Passed {
    /// Counts one; its ending is empty if it has none.
    pub(super) fn add(&mut self, why: Why, ending: &str, name: impl FnOnce() -> String) {
        self.add_many(why, ending, 1, name);
    }

    pub(super) fn add_many(
        &mut self,
        why: Why,
        ending: &str,
        count: usize,
        name: impl FnOnce() -> String,
    ) {
        (self.0.entry((why, ending.to_owned())))
            .and_modify(|(before, _)| *before += count)
            .or_insert_with(|| (count, name()));
    }

    /// Counts what came after, too.
    pub(super) fn append(&mut self, later: Passed) {
        for ((why, ending), (count, name)) in later.0 {
            self.add_many(why, &ending, count, || name);
        }
    }

    /// How many there are for this reason.
    pub(super) fn count(&self, why: Why) -> usize {
        self.of(why).map(|(_, count, _)| count).sum()
    }

    /// The name of the first for this reason.
    pub(super) fn first(&self, why: Why) -> Option<&str> {
        self.of(why).map(|(.., name)| name).next()
    }

    /// One entry a reason.
    pub(super) fn left_out(&self) -> Vec<LeftOut> {
        let mut reasons: Vec<Why> = self.0.keys().map(|(why, _)| *why).collect();
        reasons.dedup();
        reasons
            .into_iter()
            .map(|why| LeftOut {
                count: self.count(why),
                what: match why {
                    Why::Tail => why.what().to_owned(),
                    _ => format!("{} ({})", why.what(), self.endings(why)),
                },
                example: self.first(why).unwrap_or_default().to_owned(),
                reason: why.reason().to_owned(),
            })
            .collect()
    }

    /// ".txt: 12, .pth: 3, and 2 more endings", the most frequent first.
    fn endings(&self, why: Why) -> String {
        const SHOWN: usize = 8;
        let mut endings: Vec<(&str, usize)> = (self.of(why))
            .map(|(ending, count, _)| (ending, count))
            .collect();
        endings.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut words: Vec<String> = (endings.iter().take(SHOWN))
            .map(|(ending, count)| match *ending {
                "" => format!("no ending: {count}"),
                ending => format!(".{ending}: {count}"),
            })
            .collect();
        match endings.len().saturating_sub(SHOWN) {
            0 => {}
            1 => words.push("and 1 more ending".to_owned()),
            more => words.push(format!("and {more} more endings")),
        }
        words.join(", ")
    }

    fn of(&self, why: Why) -> impl Iterator<Item = (&str, usize, &str)> {
        (self.0.iter())
            .filter(move |((of, _), _)| *of == why)
            .map(|((_, ending), (count, name))| (ending.as_str(), *count, name.as_str()))
    }
}

impl Why {
    /// As it follows the number.
    fn what(self) -> &'static str {
        match self {
            Why::Dots => "images with further dots in the name",
            Why::SameKey => "images with the key of another",
            Why::Format => "images of other formats",
            Why::Link => "links or sparse files",
            Why::Hidden => "hidden files",
            Why::Orphan => "label files without an image",
            Why::Other => "files of other kinds",
            Why::Tail => "bytes after the end of a tar file",
            Why::Compressed => "compressed tar files",
            Why::NoShard => "files beside the tar files",
        }
    }

    /// With the remedy, if they are images.
    fn reason(self) -> &'static str {
        match self {
            Why::Dots => {
                "what follows the first dot is the ending, as for WebDataset, and names a mask or another view; \
                 rename them if they are the images, with one dot"
            }
            Why::SameKey => {
                "what comes before the first dot is the key of one image, that of the most usual ending; \
                 rename the others if they are images"
            }
            Why::Format => "their format is not read; convert them to jpeg, png or tiff",
            Why::Link => {
                "a tar file does not hold their whole content; write it with tar --dereference --hard-dereference and \
                 without --sparse"
            }
            Why::Hidden => "their names begin with a dot",
            Why::Orphan => "no image before or after them in the tar file has their name",
            Why::Other => "they have neither the ending nor the content of an image",
            Why::Tail => "they are no tar file; write it again if it should hold more images",
            Why::Compressed => {
                "images are read in any order, which compression forbids; unpack them with gunzip, unzstd, unxz or \
                 bunzip2"
            }
            Why::NoShard => {
                "they are no tar files; move images into a folder of their own to read them"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_counted_by_reason() {
        let mut passed = Passed::default();
        for name in ["a/2.txt", "a/1.txt", "a/1.pth", "a/LICENSE"] {
            let ending = name.split_once('.').map_or("", |(_, ending)| ending);
            passed.add(Why::Other, ending, || name.to_owned());
        }
        let mut later = Passed::default();
        later.add(Why::Other, "txt", || "b/1.txt".to_owned());
        later.add_many(Why::Tail, "", 7, || "b.tar".to_owned());
        passed.append(later);
        let lines: Vec<String> = passed.left_out().iter().map(LeftOut::to_string).collect();
        assert_eq!(
            lines,
            [
                "left out 5 files of other kinds (.txt: 3, no ending: 1, .pth: 1), the first a/LICENSE: they have \
                 neither the ending nor the content of an image",
                "left out 7 bytes after the end of a tar file, the first b.tar: they are no tar file; write it again \
                 if it should hold more images",
            ]
        );
        for number in 0..11 {
            passed.add(Why::Dots, &format!("{number}.png"), || {
                format!("x.{number}.png")
            });
        }
        let words = &passed.left_out()[0].what;
        assert!(words.ends_with(".6.png: 1, and 3 more endings)"), "{words}");
    }
}
