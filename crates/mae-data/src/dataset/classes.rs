use super::Dataset;
use crate::error::DataError;

/// The classes that training and validation images share, in label order.
///
/// Labels are comparable only if both data sets have the same classes in the same order; folders
/// sort theirs by name, so equal sub-folders are enough.
///
/// # Errors
/// [`DataError::Config`] if a data set has no classes, or if a class is in one of them only: it
/// lists those classes; or if both have the same classes in another order.
pub fn shared_classes<'a>(
    train: &'a dyn Dataset,
    val: &dyn Dataset,
) -> Result<&'a [String], DataError> {
    check_labelled("training images", train)?;
    check_labelled("validation images", val)?;
    if train.classes() == val.classes() {
        return Ok(train.classes());
    }
    let only_train = missing_from(val, train);
    let only_val = missing_from(train, val);
    let refuse = |found, remedy: &str| {
        Err(DataError::Config {
            key: "classes",
            expected: "the same for training and validation".to_owned(),
            found,
            remedy: remedy.to_owned(),
        })
    };
    let remedy = "give both the same sub-folders, each with images";
    match (only_train.is_empty(), only_val.is_empty()) {
        (true, true) => refuse(
            "the same names in another order".to_owned(),
            "open both in the same way",
        ),
        (true, false) => refuse(format!("only in validation: {}", list(&only_val)), remedy),
        (false, true) => refuse(format!("only in training: {}", list(&only_train)), remedy),
        (false, false) => refuse(
            format!(
                "only in training: {}; only in validation: {}",
                list(&only_train),
                list(&only_val)
            ),
            remedy,
        ),
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

/// Classes of `dataset` that `other` does not have.
fn missing_from<'a>(other: &dyn Dataset, dataset: &'a dyn Dataset) -> Vec<&'a str> {
    (dataset.classes().iter())
        .filter(|class| !other.classes().contains(class))
        .map(String::as_str)
        .collect()
}

/// "ant, bee, and 3 more".
fn list(classes: &[&str]) -> String {
    const SHOWN: usize = 10;
    let shown = classes[..classes.len().min(SHOWN)].join(", ");
    match classes.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}, and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;

    struct Labelled(Vec<String>);

    impl Dataset for Labelled {
        fn len(&self) -> usize {
            7
        }

        fn channels(&self) -> usize {
            3
        }

        fn image(&self, _: usize) -> Result<Image, DataError> {
            Image::new(1, 1, 3, vec![0; 3])
        }

        fn classes(&self) -> &[String] {
            &self.0
        }

        fn name(&self, index: usize) -> String {
            format!("{index}.png")
        }
    }

    fn labelled(classes: &[&str]) -> Labelled {
        Labelled(classes.iter().map(|class| (*class).to_owned()).collect())
    }

    fn check(train: &[&str], val: &[&str], expected: &str) {
        let found = match shared_classes(&labelled(train), &labelled(val)) {
            Ok(classes) => classes.join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn equal_classes_are_shared() {
        check(&["ant", "bee"], &["ant", "bee"], "ant bee");
    }

    #[test]
    fn other_classes_are_listed_by_side() {
        check(
            &["ant", "bee", "cat"],
            &["ant"],
            "classes: expected the same for training and validation, found only in training: \
             bee, cat; give both the same sub-folders, each with images",
        );
        check(
            &["ant"],
            &["ant", "bee"],
            "classes: expected the same for training and validation, found only in validation: \
             bee; give both the same sub-folders, each with images",
        );
        check(
            &["ant", "bee"],
            &["ant", "dog"],
            "classes: expected the same for training and validation, found only in training: \
             bee; only in validation: dog; give both the same sub-folders, each with images",
        );
        check(
            &["ant", "bee"],
            &["bee", "ant"],
            "classes: expected the same for training and validation, found the same names in \
             another order; open both in the same way",
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: Vec<String> = (0..13).map(|class| class.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let error = shared_classes(&labelled(&many), &labelled(&["0"])).unwrap_err();
        assert!(error.to_string().contains("9, 10, and 2 more"), "{error}");
    }

    #[test]
    fn images_without_classes_are_refused_with_what_was_found() {
        check(
            &["ant"],
            &[],
            "validation images: expected one sub-folder per class, found 7 images without \
             classes, the first 0.png; move every image into a sub-folder named after its class; \
             with an image beside the sub-folders there are no classes; in tar shards, give every \
             image a .cls file",
        );
        let error = shared_classes(&labelled(&[]), &labelled(&["ant"])).unwrap_err();
        assert!(error.to_string().starts_with("training images"), "{error}");
    }
}
