//! From a data set to the files.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use mae_data::Dataset;
use tch::Tensor;

use super::Classifier;
use super::judgement::{Judge, Judgement};
use crate::data::tell_of_images;
use crate::error::Error;
use crate::rows::{Format, Identity, Layout, Made, Partial, Rows, check_free, class_of};

/// What [`predict`] wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Images in the file.
    pub images: usize,
    /// How often the predictions are right, where the data has labels.
    pub judgement: Option<Judgement>,
    /// Name and reason of each broken image, which is in no file.
    pub broken: Vec<(String, String)>,
}

/// Numbers that are in memory at once when the predictions are written.
const AT_ONCE: usize = 1 << 22;

/// Writes what the classifier takes every image of `dataset` for, in its order, as CSV: `path`, `label` if the data has
/// classes, `class` and `probability`; and `class_2`, `probability_2` and so on for as many as
/// [`top`](Classifier::top) says.
///
/// With `probabilities`, a name that ends in `.npy`, those of all classes are there, too: `[images, classes]`, f32.
///
/// The probabilities go to `out` with `.partial` after it, and from time to time `.partial.json` notes how far they are
/// whole: called again, it goes on there, and the files become the same to the byte. `out`
/// appears once it is complete. `None` after a signal.
///
/// # Errors
/// If a file is there already and must not be replaced, what is unfinished was begun with another model, other images
/// or settings, too many images are broken, or files cannot be written.
pub fn predict(
    classifier: &Classifier,
    dataset: &Arc<dyn Dataset>,
    out: &Path,
    probabilities: Option<&Path>,
) -> Result<Option<Summary>, Error> {
    Ok(write(classifier, dataset, out, probabilities)?)
}

fn write(
    classifier: &Classifier,
    dataset: &Arc<dyn Dataset>,
    out: &Path,
    probabilities: Option<&Path>,
) -> Result<Option<Summary>> {
    let names = classifier.model.class_names();
    ensure!(
        (1..=names.len()).contains(&classifier.top),
        "{} classes are to be named of each image, expected 1 to {}, the classes that the model knows",
        classifier.top,
        names.len()
    );
    tell_of_images(&[dataset.as_ref()], &classifier.progress);
    if let Some(path) = probabilities {
        let is_npy = path.extension().is_some_and(|ending| ending == "npy");
        ensure!(
            is_npy,
            "{}: expected a name that ends in .npy, for NumPy",
            path.display()
        );
        check_free(path, classifier.overwrite)?;
    }
    let settings = format!("probabilities in {}", classifier.precision.name());
    let identity = Identity::new(
        "prediction",
        &classifier.weights,
        dataset.as_ref(),
        &settings,
        classifier.model.device(),
    )?;
    let layout = Layout::new(
        Format::Npy,
        dataset.len(),
        vec![names.len()],
        &BTreeMap::new(),
    );
    let mut partial = Partial::open(out, out, identity, layout, classifier.overwrite)?;
    let work = Rows {
        dataset,
        extraction: classifier.extraction(),
        doing: "classifying",
        interrupt: &classifier.interrupt,
        progress: &classifier.progress,
    };
    let made = work.fill(&mut partial, |batch| classifier.probabilities(batch))?;
    let Some(Made { rows, broken }) = made else {
        return Ok(None);
    };
    let mut judge = Judge::new(dataset.as_ref(), &names);
    mae_report::write_atomic_with(out, |path| {
        let mut csv = csv::Writer::from_path(path)?;
        let mut table = Table {
            dataset: dataset.as_ref(),
            names: &names,
            top: classifier.top,
            csv: &mut csv,
        };
        (table.write(&rows, &mut partial, judge.as_mut())).map_err(io::Error::other)?;
        csv.flush()
    })?;
    match probabilities {
        Some(path) => partial.finish(&rows, None, Some(path))?,
        None => partial.discard()?,
    }
    Ok(Some(Summary {
        images: rows.len(),
        judgement: judge.and_then(Judge::judgement),
        broken,
    }))
}

/// The predictions as they are written.
struct Table<'a, W: std::io::Write> {
    dataset: &'a dyn Dataset,
    names: &'a [String],
    top: usize,
    csv: &'a mut csv::Writer<W>,
}

impl<W: std::io::Write> Table<'_, W> {
    /// Writes the classes of the images `rows`, and shows their probabilities to `judge`.
    fn write(
        &mut self,
        rows: &[usize],
        partial: &mut Partial,
        mut judge: Option<&mut Judge>,
    ) -> Result<()> {
        let (classes, dataset) = (self.names.len(), self.dataset);
        let has_labels = !dataset.classes().is_empty();
        let mut header = vec!["path".to_string()];
        if has_labels {
            header.push("label".into());
        }
        header.extend(["class".into(), "probability".into()]);
        for place in 2..=self.top {
            header.extend([format!("class_{place}"), format!("probability_{place}")]);
        }
        self.csv.write_record(&header)?;
        let mut left = rows;
        partial.read_back((AT_ONCE / classes).max(1), |probabilities| {
            let (now, later) = left.split_at(probabilities.len() / classes);
            left = later;
            for (&index, probabilities) in now.iter().zip(probabilities.chunks_exact(classes)) {
                let mut record = vec![dataset.name(index)];
                if has_labels {
                    record.push(class_of(dataset, index).into());
                }
                for class in likeliest(probabilities, self.top) {
                    record.extend([self.names[class].clone(), probabilities[class].to_string()]);
                }
                self.csv.write_record(&record)?;
            }
            if let Some(judge) = &mut judge {
                let scores = Tensor::from_slice(probabilities).view([-1, classes as i64]);
                judge.add(dataset, now, &scores)?;
            }
            Ok(())
        })
    }
}

/// The classes of the `top` largest probabilities, of equal ones those that come first.
fn likeliest(probabilities: &[f32], top: usize) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..probabilities.len()).collect();
    let larger_first = |class: &usize| {
        // Of positive numbers, the bits are in the order of the values.
        (Reverse(probabilities[*class].to_bits()), *class)
    };
    if top < classes.len() {
        classes.select_nth_unstable_by_key(top - 1, larger_first);
        classes.truncate(top);
    }
    classes.sort_unstable_by_key(larger_first);
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_in_order() {
        let probabilities = [0.1, 0.3, 0.05, 0.3, 0.25];
        assert_eq!(likeliest(&probabilities, 1), [1]);
        assert_eq!(likeliest(&probabilities, 3), [1, 3, 4]);
        assert_eq!(likeliest(&probabilities, 5), [1, 3, 4, 0, 2]);
    }
}
