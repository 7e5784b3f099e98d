use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Dataset, Subset};
use crate::error::DataError;

/// The classes that training and validation images share, in label order.
///
/// Labels are comparable only if both data sets have the same classes in the same order: where they have not, as data
/// sets that lie in different places need not, [`label_by_name`] makes it so.
///
/// # Errors
/// What [`Dataset::check_labels`] says; [`DataError::Config`] if a data set has no classes, or if they have not the
/// same: it lists those that one of them alone has.
pub fn shared_classes<'a>(
    train: &'a dyn Dataset,
    val: &dyn Dataset,
) -> Result<&'a [String], DataError> {
    train.check_labels()?;
    val.check_labels()?;
    check_labelled("training images", train)?;
    check_labelled("validation images", val)?;
    if train.classes() == val.classes() {
        return Ok(train.classes());
    }
    let names = |dataset: &'_ dyn Dataset| dataset.classes().iter().cloned().collect();
    let (train, val): (BTreeSet<String>, BTreeSet<String>) = (names(train), names(val));
    let only = |here: &BTreeSet<String>, there| -> Vec<String> {
        here.difference(there).cloned().collect()
    };
    Err(different(&only(&train, &val), &only(&val, &train)))
}

/// `val` with the labels that `train` has for classes of the same names, and the classes of `train` that none of its
/// images is of, in label order.
///
/// Only classes that images have count: of numbered ones, the numbers between are none.
///
/// # Errors
/// What [`Dataset::check_labels`] says; [`DataError::Config`] if a data set has no classes, or if images of `val` are of classes that no image of `train`
/// is of: it lists them.
pub fn label_by_name(
    train: &dyn Dataset,
    val: Arc<dyn Dataset>,
) -> Result<(Arc<dyn Dataset>, Vec<String>), DataError> {
    train.check_labels()?;
    val.check_labels()?;
    check_labelled("training images", train)?;
    check_labelled("validation images", val.as_ref())?;
    let (train_has, val_has) = (occurring(train), occurring(val.as_ref()));
    let only = |names: &[String], here: &BTreeSet<&str>, there: &BTreeSet<&str>| {
        let is_only =
            |name: &&String| here.contains(name.as_str()) && !there.contains(name.as_str());
        names.iter().filter(is_only).cloned().collect::<Vec<_>>()
    };
    let missing = only(train.classes(), &train_has, &val_has);
    let foreign = only(val.classes(), &val_has, &train_has);
    if !foreign.is_empty() {
        return Err(different(&missing, &foreign));
    }
    if train.classes() == val.classes() {
        return Ok((val, missing));
    }
    let label = |name: &String| {
        let label = train.classes().iter().position(|class| class == name)?;
        Some(label as u32)
    };
    let labels = val.classes().iter().map(label).collect();
    let val = Subset::relabelled(val, train.classes().to_vec(), labels);
    Ok((Arc::new(val), missing))
}

/// The classes that images are of.
fn occurring(dataset: &dyn Dataset) -> BTreeSet<&str> {
    let mut occurs = vec![false; dataset.classes().len()];
    for label in (0..dataset.len()).filter_map(|index| dataset.label(index)) {
        if let Some(occurs) = occurs.get_mut(label as usize) {
            *occurs = true;
        }
    }
    (dataset.classes().iter().zip(occurs))
        .filter_map(|(name, occurs)| occurs.then_some(name.as_str()))
        .collect()
}

fn different(only_train: &[String], only_val: &[String]) -> DataError {
    let parts: Vec<String> = [("training", only_train), ("validation", only_val)]
        .into_iter()
        .filter(|(_, classes)| !classes.is_empty())
        .map(|(part, classes)| format!("only in {part}: {}", list_classes(classes)))
        .collect();
    DataError::Config {
        key: "classes",
        expected: "those of the training images".to_owned(),
        found: match parts.is_empty() {
            true => "the same names in another order".to_owned(),
            false => parts.join("; "),
        },
        remedy: "give both the same names of classes, and the training images at least those of validation"
            .to_owned(),
    }
}

fn check_labelled(key: &'static str, dataset: &dyn Dataset) -> Result<(), DataError> {
    if !dataset.classes().is_empty() {
        return Ok(());
    }
    Err(DataError::Config {
        key,
        expected: "one sub-folder per class".to_owned(),
        found: match dataset.len() {
            0 => "no images".to_owned(),
            len => format!(
                "{len} images without classes, the first {}",
                dataset.name(0)
            ),
        },
        remedy: "move every image into a sub-folder named after its class; \
                 with an image beside the sub-folders there are no classes; \
                 in tar shards, give every image a .cls file"
            .to_owned(),
    })
}

/// The names of classes for a message, ten at most: "ant, bee, and 3 more".
pub fn list_classes(classes: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = classes[..classes.len().min(SHOWN)].join(", ");
    match classes.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}, and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use super::*;
    use crate::image::Image;

    /// Classes, and the label of each image.
    struct Labelled(Vec<String>, Vec<u32>);

    impl Dataset for Labelled {
        fn len(&self) -> usize {
            self.1.len()
        }

        fn channels(&self) -> usize {
            3
        }

        fn image(&self, _: usize) -> Result<Image, DataError> {
            Image::new(1, 1, 3, vec![0; 3])
        }

        fn label(&self, index: usize) -> Option<u32> {
            (!self.0.is_empty()).then(|| self.1[index])
        }

        fn classes(&self) -> &[String] {
            &self.0
        }

        fn name(&self, index: usize) -> String {
            format!("{index}.png")
        }
    }

    /// Two images of each class.
    fn labelled(classes: &[&str]) -> Labelled {
        let labels = 0..classes.len().max(1) as u32;
        of(classes, &labels.clone().chain(labels).collect::<Vec<_>>())
    }

    fn of(classes: &[&str], labels: &[u32]) -> Labelled {
        let classes = classes.iter().map(|class| (*class).to_owned()).collect();
        Labelled(classes, labels.to_vec())
    }

    /// The labels of the validation images as training has them, and the missing classes; or the error.
    fn relabel(train: &Labelled, val: Labelled) -> Result<(Vec<Option<u32>>, String), String> {
        let (val, missing) =
            label_by_name(train, Arc::new(val)).map_err(|error| error.to_string())?;
        assert_eq!(val.classes(), train.classes());
        assert!(shared_classes(train, val.as_ref()).is_ok());
        let labels = (0..val.len()).map(|index| val.label(index)).collect();
        Ok((labels, missing.join(" ")))
    }

    fn check(train: &[&str], val: &[&str], labels: &[u32], missing: &str) {
        let labels = labels.iter().copied().map(Some).collect();
        let found = relabel(&labelled(train), labelled(val));
        assert_eq!(found, Ok((labels, missing.to_owned())));
    }

    #[test]
    fn labels_go_by_name() {
        check(&["ant", "bee"], &["ant", "bee"], &[0, 1, 0, 1], "");
        check(&["ant", "bee"], &["bee", "ant"], &[1, 0, 1, 0], "");
        check(&["ant", "bee", "cat"], &["cat"], &[2, 2], "ant bee");
        check(
            &["ant", "bee", "cat"],
            &["ant", "cat"],
            &[0, 2, 0, 2],
            "bee",
        );
    }

    #[test]
    fn numbers_between_are_no_classes() {
        let numbers = ["0", "1", "2", "3"];
        let train = of(&numbers, &[0, 1, 3]);
        let found = relabel(&train, of(&numbers[..2], &[1, 1]));
        assert_eq!(found, Ok((vec![Some(1), Some(1)], "0 3".to_owned())));
        // Of four, six and more numbers, these images have those that training has.
        let more = ["0", "1", "2", "3", "4", "5"];
        assert!(relabel(&of(&more, &[0, 5]), of(&more, &[5])).is_ok());
        assert!(relabel(&of(&more[..4], &[0, 3]), of(&more, &[3])).is_ok());
        let message = relabel(&train, of(&numbers, &[0, 2])).unwrap_err();
        assert!(message.contains("only in validation: 2;"), "{message}");
    }

    #[test]
    fn classes_of_validation_alone_are_listed() {
        let message = relabel(&labelled(&["ant", "bee"]), labelled(&["ant", "dog"])).unwrap_err();
        assert_eq!(
            message,
            "classes: expected those of the training images, found only in training: bee; only in validation: dog; \
             give both the same names of classes, and the training images at least those of validation"
        );
        let error = shared_classes(&labelled(&["ant", "bee"]), &labelled(&["ant"])).unwrap_err();
        assert!(
            error.to_string().contains("found only in training: bee;"),
            "{error}"
        );
        let error =
            shared_classes(&labelled(&["ant", "bee"]), &labelled(&["bee", "ant"])).unwrap_err();
        assert!(error.to_string().contains("in another order"), "{error}");
    }

    #[test]
    fn other_labels_are_another_identity() {
        let identity = |train: &[&str]| {
            let val = labelled(&["bee"]);
            let (val, _) = label_by_name(&labelled(train), Arc::new(val)).unwrap();
            let mut hasher = std::hash::DefaultHasher::new();
            val.identify(&mut hasher);
            hasher.finish()
        };
        assert_eq!(identity(&["ant", "bee"]), identity(&["cat", "bee"]));
        assert_ne!(identity(&["ant", "bee"]), identity(&["ant", "ape", "bee"]));
        assert_ne!(identity(&["ant", "bee"]), identity(&["bee"]));
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: Vec<String> = (10..23).map(|class| class.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let error = shared_classes(&labelled(&many), &labelled(&["10"])).unwrap_err();
        assert!(error.to_string().contains("19, 20, and 2 more"), "{error}");
    }

    #[test]
    fn images_without_classes_are_refused_with_what_was_found() {
        for error in [
            shared_classes(&labelled(&["ant"]), &labelled(&[])).unwrap_err(),
            label_by_name(&labelled(&["ant"]), Arc::new(labelled(&[])))
                .err()
                .unwrap(),
        ] {
            assert_eq!(
                error.to_string(),
                "validation images: expected one sub-folder per class, found 2 images without \
                 classes, the first 0.png; move every image into a sub-folder named after its class; \
                 with an image beside the sub-folders there are no classes; in tar shards, give every \
                 image a .cls file"
            );
        }
        let error = shared_classes(&labelled(&[]), &labelled(&["ant"])).unwrap_err();
        assert!(error.to_string().starts_with("training images"), "{error}");
    }
}
