//! Which files of an archive belong together.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::index::{Content, Member};
use super::labels::{BadLabel, Label};
use super::passed::Why;

/// The files of an archive by their key, up to a name that comes again: where archives were put together, that is
/// another image, with a label of its own.
pub(super) struct Samples<'a> {
    path: &'a Path,
    samples: Vec<Sample>,
    of_key: HashMap<String, usize>,
    names: HashSet<String>,
}

/// The files of one key.
#[derive(Default)]
struct Sample {
    key: String,
    /// With the rank of their endings.
    images: Vec<(usize, Member)>,
    /// What the `.cls` and the `.json` file say.
    labels: [Option<Said>; 2],
}

type Said = Result<Option<Label>, BadLabel>;

/// The files that give labels; the first goes before the second.
#[derive(Clone, Copy)]
pub(super) enum LabelFile {
    Cls = 0,
    Json = 1,
}

impl<'a> Samples<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Samples {
            path,
            samples: Vec::new(),
            of_key: HashMap::new(),
            names: HashSet::new(),
        }
    }

    /// Takes note of a name; those that were there before it are finished if it is one of them.
    pub(super) fn see(&mut self, name: &str, shard: &mut Content) {
        if !self.names.insert(name.to_owned()) {
            self.finish(shard);
            self.names.insert(name.to_owned());
        }
    }

    pub(super) fn add_image(&mut self, key: &str, rank: usize, image: Member) {
        self.sample(key).images.push((rank, image));
    }

    pub(super) fn add_label(
        &mut self,
        key: &str,
        member: &str,
        file: LabelFile,
        said: Result<Option<Label>, String>,
    ) {
        let said = said.map_err(|found| BadLabel {
            member: member.to_owned(),
            found,
        });
        self.sample(key).labels[file as usize] = Some(said);
    }

    /// Moves the images, one a key, with their labels to `shard`, in the order of the archive.
    pub(super) fn finish(&mut self, shard: &mut Content) {
        self.names.clear();
        self.of_key.clear();
        let first = shard.images.len();
        for sample in self.samples.drain(..) {
            let mut images = sample.images;
            images.sort_by_key(|(rank, image)| (*rank, image.content.start));
            let mut images = images.into_iter().map(|(_, image)| image);
            let Some(image) = images.next() else {
                for (file, _) in ["cls", "json"]
                    .iter()
                    .zip(&sample.labels)
                    .filter(|(_, said)| said.is_some())
                {
                    let name = format!("{}.{file}", sample.key);
                    shard.pass(Why::Orphan, self.path, &name);
                }
                continue;
            };
            for other in images {
                shard.pass(Why::SameKey, self.path, &other.name);
            }
            if let [Some(Ok(Some(cls))), Some(Ok(Some(json)))] = &sample.labels {
                let name = || format!("{}:{}", self.path.display(), image.name);
                shard.conflicts.see(cls, json, name);
            }
            let (mut label, mut bad) = (None, None);
            for said in sample.labels.into_iter().flatten() {
                match said {
                    Ok(found) => label = label.or(found),
                    Err(found) => bad = bad.or(Some(found)),
                }
            }
            if label.is_none() && shard.bad_label.is_none() {
                shard.bad_label = bad;
            }
            shard.images.push((image, label));
        }
        shard.images[first..].sort_by_key(|(image, _)| image.content.start);
    }

    fn sample(&mut self, key: &str) -> &mut Sample {
        let place = match self.of_key.get(key) {
            Some(place) => *place,
            None => {
                self.of_key.insert(key.to_owned(), self.samples.len());
                self.samples.push(Sample {
                    key: key.to_owned(),
                    ..Sample::default()
                });
                self.samples.len() - 1
            }
        };
        &mut self.samples[place]
    }
}
