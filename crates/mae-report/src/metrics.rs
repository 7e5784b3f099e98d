//! The numbers of a run, one JSON object per line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{ReportError, write_atomic};

/// One line of `metrics.jsonl`.
///
/// JSON has no word for a number that is not finite, and a loss that is not finite is worth a record, so such
/// a value is written as one of the strings `"nan"`, `"inf"` and `"-inf"`.
/// Every finite value is read back exactly.
///
/// ```text
/// {"kind":"step","step":20,"epoch":0.5,"loss":0.93,"lr":3e-5,"grad_norm":"nan",...}
/// {"kind":"epoch","epoch":1,"step":40,"loss":0.91,"seconds":12.5,"broken_images":0,"flops_per_image":638863488}
/// ```
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// The state of the run at one optimizer step.
    Step {
        /// Optimizer steps done so far.
        step: u64,
        /// Epochs done so far, with the fraction of the current one.
        #[serde(with = "float")]
        epoch: f64,
        /// Loss of the step.
        #[serde(with = "float")]
        loss: f64,
        /// Learning rate of the step.
        #[serde(with = "float")]
        lr: f64,
        /// L2 norm of all gradients together, before any clipping.
        #[serde(with = "float")]
        grad_norm: f64,
        /// Images per second since the previous record.
        #[serde(with = "float")]
        images_per_s: f64,
        /// Model FLOPs utilisation since the previous record: the operations that the model needs for its images,
        /// per second, as a share of what matrix products reach on the device.
        #[serde(with = "float::optional", default)]
        mfu: Option<f64>,
        /// Share of the time since the previous record that went into waiting for data, from 0 to 1.
        #[serde(with = "float")]
        data_wait: f64,
        /// Factor that the loss was multiplied by before the backward pass; `None` without loss scaling.
        #[serde(with = "float::optional", default)]
        loss_scale: Option<f64>,
        /// Updates skipped so far because a gradient was not finite.
        skipped: u64,
        /// Seconds of training so far.
        #[serde(with = "float")]
        elapsed_s: f64,
    },

    /// The summary of a finished epoch.
    Epoch {
        /// The finished epoch, counted from 1.
        epoch: u64,
        /// Optimizer steps done so far.
        step: u64,
        /// Mean loss over the epoch.
        #[serde(with = "float")]
        loss: f64,
        /// Seconds that the epoch took.
        #[serde(with = "float")]
        seconds: f64,
        /// Images of the epoch that could not be decoded.
        broken_images: u64,
        /// Floating-point operations of an image's forward and backward pass; `None` where they are not counted.
        #[serde(default)]
        flops_per_image: Option<u64>,
    },

    /// How well the model classifies after an epoch.
    Accuracy {
        /// The finished epoch, counted from 1.
        epoch: u64,
        /// Optimizer steps done so far.
        step: u64,
        /// How it was measured, for example `knn k=20`.
        protocol: String,
        /// Share of the images whose class came first, 0 to 1.
        top1: f64,
        /// Share of the images whose class was among the first five, 0 to 1.
        top5: f64,
    },

    /// The loss of images that are not trained on, after an epoch.
    Validation {
        /// The finished epoch, counted from 1.
        epoch: u64,
        /// Optimizer steps done so far.
        step: u64,
        /// Mean loss, always of the same images with the same patches hidden.
        #[serde(with = "float")]
        val_loss: f64,
    },

    /// How many directions the features of images use after an epoch.
    Spectrum {
        /// The finished epoch, counted from 1.
        epoch: u64,
        /// Optimizer steps done so far.
        step: u64,
        /// What the features are, for example `cls`.
        tokens: String,
        /// RankMe of the features.
        #[serde(with = "float")]
        rank_me: f64,
        /// Effective rank of the features less their mean.
        #[serde(with = "float")]
        effective_rank: f64,
        /// The power at which their variances fall; `None` of fewer than two directions.
        #[serde(with = "float::optional", default)]
        alpha: Option<f64>,
    },

    /// How a tokenizer does after an epoch, on images that it encoded and decoded.
    Tokens {
        /// The finished epoch, counted from 1.
        epoch: u64,
        /// Optimizer steps done so far.
        step: u64,
        /// Mean squared error of normalised pixels.
        #[serde(with = "float")]
        mse: f64,
        /// Different tokens among those of the images.
        used: u64,
        /// Exponential of the entropy of the tokens' frequencies: how many tokens that are equally frequent would
        /// be as diverse.
        perplexity: f64,
    },
}

impl Record {
    /// The number of optimizer steps done when the record was made.
    pub fn step(&self) -> u64 {
        match *self {
            Self::Step { step, .. }
            | Self::Epoch { step, .. }
            | Self::Accuracy { step, .. }
            | Self::Validation { step, .. }
            | Self::Spectrum { step, .. }
            | Self::Tokens { step, .. } => step,
        }
    }

    /// Whether it was made by the time of a checkpoint at `step`, after `epochs` finished epochs.
    fn is_before(&self, step: u64, epochs: u64) -> bool {
        match *self {
            Self::Step { .. } => self.step() <= step,
            Self::Epoch { epoch, .. }
            | Self::Accuracy { epoch, .. }
            | Self::Validation { epoch, .. }
            | Self::Spectrum { epoch, .. }
            | Self::Tokens { epoch, .. } => epoch <= epochs,
        }
    }
}

/// Appends [`Record`]s to a metrics file.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

impl MetricsWriter {
    /// Starts an empty metrics file, in place of any that is there.
    ///
    /// # Errors
    /// [`ReportError::Io`] if the file cannot be created.
    pub fn create(path: &Path) -> Result<Self, ReportError> {
        let file = File::create(path).map_err(ReportError::io("create", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Continues a metrics file from a checkpoint made at `step`, after `epochs` finished epochs.
    ///
    /// Drops the records of later steps and epochs, which the run is about to repeat, and a last line torn by a crash.
    /// A checkpoint may lie between an epoch's last step and its end, so the step alone does not say which
    /// epochs are finished.
    /// Other lines stay byte for byte, unknown fields included.
    /// A missing file counts as an empty one.
    ///
    /// # Errors
    /// - [`ReportError::Io`] if the file cannot be read or replaced.
    /// - [`ReportError::Metrics`] if a line other than a torn last one is not a record.
    pub fn resume(path: &Path, step: u64, epochs: u64) -> Result<Self, ReportError> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            outcome => outcome.map_err(ReportError::io("read", path))?,
        };
        let mut kept = Vec::with_capacity(bytes.len() + 1);
        for (line, record) in parse(path, &bytes)? {
            if record.is_before(step, epochs) {
                kept.extend_from_slice(line);
                kept.push(b'\n');
            }
        }
        write_atomic(path, &kept)?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(ReportError::io("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Appends one record; it is with the operating system when this returns.
    ///
    /// # Errors
    /// [`ReportError::Io`] if the file cannot be written to.
    pub fn write(&mut self, record: &Record) -> Result<(), ReportError> {
        serde_json::to_vec(record)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                // One unbuffered write, so that a crash tears at most the last line.
                self.file.write_all(&line)
            })
            .map_err(ReportError::io("write", &self.path))
    }
}

/// Reads a metrics file, also one that is still being written: a torn last line is left out.
///
/// # Errors
/// - [`ReportError::Io`] if the file cannot be read.
/// - [`ReportError::Metrics`] if any other line is not a record.
pub fn read_metrics(path: &Path) -> Result<Vec<Record>, ReportError> {
    let bytes = fs::read(path).map_err(ReportError::io("read", path))?;
    Ok(parse(path, &bytes)?
        .into_iter()
        .map(|(_, record)| record)
        .collect())
}

/// The lines, without their line ends, and what they say.
fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<(&'a [u8], Record)>, ReportError> {
    let mut records = Vec::new();
    for (index, whole) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let line = whole.strip_suffix(b"\n");
        match serde_json::from_slice(line.unwrap_or(whole)) {
            Ok(record) => records.push((line.unwrap_or(whole), record)),
            // Only the last line can lack its end, and what ends in `}` without one is complete all the same.
            Err(_) if line.is_none() => {}
            Err(error) => {
                let found = String::from_utf8_lossy(whole)
                    .trim_end()
                    .chars()
                    .take(80)
                    .collect();
                return Err(ReportError::Metrics {
                    path: path.to_owned(),
                    line: index + 1,
                    found,
                    error,
                });
            }
        }
    }
    Ok(records)
}

/// JSON for floats that may not be finite.
mod float {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(
        untagged,
        expecting = "expected a number, \"nan\", \"inf\" or \"-inf\""
    )]
    enum Float {
        Finite(f64),
        Other(NotFinite),
    }

    #[derive(Serialize, Deserialize)]
    enum NotFinite {
        #[serde(rename = "nan")]
        Nan,
        #[serde(rename = "inf")]
        Infinity,
        #[serde(rename = "-inf")]
        NegativeInfinity,
    }

    impl From<f64> for Float {
        fn from(value: f64) -> Self {
            match value {
                _ if value.is_finite() => Self::Finite(value),
                _ if value.is_nan() => Self::Other(NotFinite::Nan),
                _ if value > 0.0 => Self::Other(NotFinite::Infinity),
                _ => Self::Other(NotFinite::NegativeInfinity),
            }
        }
    }

    impl From<Float> for f64 {
        fn from(float: Float) -> Self {
            match float {
                Float::Finite(value) => value,
                Float::Other(NotFinite::Nan) => f64::NAN,
                Float::Other(NotFinite::Infinity) => f64::INFINITY,
                Float::Other(NotFinite::NegativeInfinity) => f64::NEG_INFINITY,
            }
        }
    }

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        Float::from(*value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Float::deserialize(deserializer).map(f64::from)
    }

    pub mod optional {
        use super::*;

        pub fn serialize<S: Serializer>(
            value: &Option<f64>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            value.map(Float::from).serialize(serializer)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<f64>, D::Error> {
            Ok(Option::<Float>::deserialize(deserializer)?.map(f64::from))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64, loss: f64, loss_scale: Option<f64>) -> Record {
        Record::Step {
            step,
            epoch: step as f64 / 40.0,
            loss,
            lr: 1.5e-4,
            grad_norm: loss,
            images_per_s: 1000.0 / 3.0,
            mfu: Some(0.5),
            data_wait: 0.02,
            loss_scale,
            skipped: 1,
            elapsed_s: 12.0,
        }
    }

    fn epoch(epoch: u64, step: u64) -> Record {
        Record::Epoch {
            epoch,
            step,
            loss: 0.5,
            seconds: 2.0,
            broken_images: 3,
            flops_per_image: Some(600),
        }
    }

    fn round_trip(record: &Record) -> Record {
        serde_json::from_str(&serde_json::to_string(record).unwrap()).unwrap()
    }

    #[test]
    fn the_format_on_disk_is_fixed() {
        assert_eq!(
            serde_json::to_string(&step(20, f64::NAN, None)).unwrap(),
            r#"{"kind":"step","step":20,"epoch":0.5,"loss":"nan","lr":0.00015,"grad_norm":"nan","images_per_s":333.3333333333333,"mfu":0.5,"data_wait":0.02,"loss_scale":null,"skipped":1,"elapsed_s":12.0}"#
        );
        assert_eq!(
            serde_json::to_string(&epoch(1, 40)).unwrap(),
            r#"{"kind":"epoch","epoch":1,"step":40,"loss":0.5,"seconds":2.0,"broken_images":3,"flops_per_image":600}"#
        );
        let before_they_were_counted = serde_json::from_str(
            r#"{"kind":"epoch","epoch":1,"step":40,"loss":0.5,"seconds":2.0,"broken_images":3}"#,
        );
        let mut expected = epoch(1, 40);
        let Record::Epoch {
            flops_per_image, ..
        } = &mut expected
        else {
            unreachable!("an epoch")
        };
        *flops_per_image = None;
        assert_eq!(before_they_were_counted.ok(), Some(expected));
    }

    #[test]
    fn every_float_survives() {
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        let random = (0..2000).map(|_| {
            bits = bits
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            f64::from_bits(bits)
        });
        let chosen = [
            0.0,
            -0.0,
            1.0,
            0.1,
            f64::MIN_POSITIVE,
            f64::MAX,
            f64::INFINITY,
            f64::NEG_INFINITY,
            5e-324,
        ];
        for value in chosen
            .into_iter()
            .chain(random.filter(|value| !value.is_nan()))
        {
            let record = step(1, value, Some(value));
            assert_eq!(round_trip(&record), record, "{value:e}");
        }
        let Record::Step {
            loss, loss_scale, ..
        } = round_trip(&step(1, f64::NAN, Some(f64::NAN)))
        else {
            panic!()
        };
        assert!(loss.is_nan() && loss_scale.unwrap().is_nan());
    }

    #[test]
    fn whole_numbers_and_a_missing_loss_scale_are_read() {
        let line = r#"{"kind":"step","step":1,"epoch":1,"loss":2,"lr":0,"grad_norm":3,"images_per_s":4,"data_wait":0,"skipped":0,"elapsed_s":-1}"#;
        let record: Record = serde_json::from_str(line).unwrap();
        assert!(matches!(
            record,
            Record::Step {
                loss: 2.0,
                loss_scale: None,
                elapsed_s: -1.0,
                ..
            }
        ));
    }

    #[test]
    fn resume_drops_later_steps_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::create(&path).unwrap();
        for record in [
            step(20, 0.9, None),
            step(40, 0.8, None),
            epoch(1, 40),
            step(60, 0.7, None),
        ] {
            writer.write(&record).unwrap();
        }
        writer
            .file
            .write_all(b"{\"kind\":\"step\",\"st\xc3")
            .unwrap();
        assert_eq!(read_metrics(&path).unwrap().len(), 4);

        let mut writer = MetricsWriter::resume(&path, 40, 1).unwrap();
        writer.write(&step(60, 0.6, None)).unwrap();
        let expected = [
            step(20, 0.9, None),
            step(40, 0.8, None),
            epoch(1, 40),
            step(60, 0.6, None),
        ];
        assert_eq!(read_metrics(&path).unwrap(), expected);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_epoch_that_the_checkpoint_had_not_finished_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::create(&path).unwrap();
        // Killed after the end of the second epoch, the latest checkpoint being that of its last step.
        for record in [epoch(1, 20), step(40, 0.8, None), epoch(2, 40)] {
            writer.write(&record).unwrap();
        }
        MetricsWriter::resume(&path, 40, 1)
            .unwrap()
            .write(&epoch(2, 40))
            .unwrap();
        let expected = [epoch(1, 20), step(40, 0.8, None), epoch(2, 40)];
        assert_eq!(read_metrics(&path).unwrap(), expected);
    }

    #[test]
    fn resume_keeps_lines_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        // A field of a later version, and a last line that lacks only its end.
        let line = r#"{"kind":"epoch","epoch":1,"step":4,"loss":1,"seconds":2,"broken_images":0,"new":[1]}"#;
        fs::write(&path, line).unwrap();
        MetricsWriter::resume(&path, 4, 1)
            .unwrap()
            .write(&epoch(2, 8))
            .unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().next(), Some(line));
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn resume_without_a_file_starts_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        MetricsWriter::resume(&path, 7, 1)
            .unwrap()
            .write(&epoch(1, 8))
            .unwrap();
        assert_eq!(read_metrics(&path).unwrap(), [epoch(1, 8)]);
    }

    #[test]
    fn a_bad_line_is_named_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let good = serde_json::to_string(&epoch(1, 4)).unwrap();
        for bad in [
            "{\"kind\":\"st",
            "",
            "{\"kind\":\"epoch\",\"epoch\":1}",
            &good.replace("0.5", "\"big\""),
        ] {
            let text = format!("{good}\n{bad}\n{good}\n");
            fs::write(&path, &text).unwrap();
            for error in [
                read_metrics(&path).unwrap_err(),
                MetricsWriter::resume(&path, 0, 0).unwrap_err(),
            ] {
                assert!(
                    matches!(error, ReportError::Metrics { line: 2, .. }),
                    "{error}"
                );
                assert!(
                    error.to_string().contains("metrics.jsonl line 2"),
                    "{error}"
                );
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
