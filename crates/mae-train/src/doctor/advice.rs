//! What is wrong with a run, or soon will be, and what to do about it.

use std::path::Path;

use mae_data::Dataset;
use mae_model::Target;
use serde::Serialize;
use tch::Device;

use super::{DeviceMemory, ImageSample, Plan, RunDisk, RunMemory, RunTime, Speed};
use crate::config::{AugmentationKind, DataSource, RunConfig};
use crate::data::parts::Parts;
use crate::run::folder::RunDir;
use crate::train::precision::Precision;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The run would stop, or learn nothing.
    Error,
    /// The run would be slower or worse than it need be.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The key to change, or what it is about.
    pub key: &'static str,
    /// What is wrong, with its numbers.
    pub problem: String,
    /// What to do; empty where the problem's words say it.
    pub remedy: String,
}

impl Finding {
    pub(super) fn error(
        key: &'static str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            key,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    fn warning(key: &'static str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(key, problem, remedy)
        }
    }
}

/// What the images say of themselves, and of their labels where these are needed.
pub(super) fn of_notes(config: &RunConfig, dataset: &dyn Dataset) -> Vec<Finding> {
    let of_labels = dataset.label_note().filter(|_| config.run.eval_every > 0);
    let notes = dataset.notes().into_iter().chain(of_labels);
    notes
        .map(|note| Finding::warning("data.path", note, ""))
        .collect()
}

/// Whether the images are of all parts of a data set, which are taken for classes.
pub(super) fn of_parts(config: &RunConfig, dataset: &dyn Dataset) -> Option<Finding> {
    let parts = Parts::of(dataset, config.data.path.as_deref()?)?;
    Some(match config.run.eval_every {
        0 => Finding::warning("data.path", parts.notice(), ""),
        _ => Finding::error(
            "run.eval_every",
            format!("it needs one sub-folder a class, but {parts}"),
            "give one of them with --data",
        ),
    })
}

/// From the configuration alone.
pub(super) fn of_configuration(config: &RunConfig) -> Vec<Finding> {
    let mut found = Vec::new();
    let (model, optim) = (&config.method.model, &config.optim);
    if model.norm_pix_loss && model.target == Target::Pixels {
        match (config.grid.patch_dim(), model.patch_size) {
            (1, _) => found.push(Finding::error(
                "model.norm_pix_loss",
                "a patch is one number, which has no variance to be normalised by: every loss is NaN",
                "set model.norm_pix_loss=false, or a larger model.patch_size",
            )),
            (_, 1) => found.push(Finding::warning(
                "model.norm_pix_loss",
                "a patch is one pixel: normalised by the variance of its channels, all grey pixels become 0",
                "set model.norm_pix_loss=false, or a larger model.patch_size",
            )),
            _ => {}
        }
    }
    let share = optim.warmup_epochs / optim.epochs as f64;
    if share > 0.5 {
        found.push(Finding::warning(
            "optim.warmup_epochs",
            format!(
                "the warm-up takes {:.0} % of the run: {} of {} epochs",
                100.0 * share,
                optim.warmup_epochs,
                optim.epochs
            ),
            "5 to 10 % is usual: set optim.warmup_epochs",
        ));
    }
    let augments = config.data.augmentation != AugmentationKind::None
        || config.data.hflip
        || config.data.color_jitter.is_some();
    if !augments && optim.epochs >= 200 {
        found.push(Finding::warning(
            "data.augmentation",
            format!(
                "each of {} epochs sees the same images, only masked anew",
                optim.epochs
            ),
            "set data.augmentation=random-resized-crop and data.hflip=true, as the paper does",
        ));
    }
    let run = &config.run;
    if run.checkpoint_every == 0 && run.checkpoint_minutes == 0.0 && optim.epochs > 1 {
        found.push(Finding::warning(
            "run.checkpoint_every",
            "nothing is saved before the end: what a crash or a power cut ends is lost",
            "set run.checkpoint_every or run.checkpoint_minutes",
        ));
    }
    found
}

/// From what the machine has; `has_bf16`: its CPU has instructions for fused blocks in bf16.
pub(super) fn of_machine(
    config: &RunConfig,
    cores: usize,
    has_gpu: bool,
    has_bf16: bool,
) -> Vec<Finding> {
    let mut found = Vec::new();
    if config.device == Device::Cpu {
        let is_slow = match config.precision {
            Precision::Fp32 => false,
            Precision::Bf16 => !has_bf16,
            Precision::Fp16 => true,
        };
        if is_slow {
            let name = config.precision.name();
            found.push(Finding::warning(
                "run.precision",
                format!(
                    "this CPU goes without the fused kernels in {name}, and is slower than in fp32"
                ),
                "set run.precision=fp32",
            ));
        }
        if has_gpu {
            found.push(Finding::warning(
                "run.device",
                "the CPU is to compute, but there is a GPU",
                "set run.device=cuda",
            ));
        }
    }
    if config.run.workers > cores {
        found.push(Finding::warning(
            "run.workers",
            format!(
                "{} threads are to load images on {cores} cores",
                config.run.workers
            ),
            "set run.workers=0 for one a core",
        ));
    }
    found
}

/// From what is in the run's folder already.
pub(super) fn of_folder(out: &Path) -> Vec<Finding> {
    let taken = RunDir::taken(out).map(|[reason, remedy]| Finding::error("--out", reason, remedy));
    taken.into_iter().collect()
}

/// From the sizes of the run.
pub(super) fn of_plan(config: &RunConfig, plan: &Plan) -> Vec<Finding> {
    let mut found = Vec::new();
    for (tokens, what) in [(plan.kept, "visible"), (plan.hidden, "hidden")] {
        if tokens < 4 {
            found.push(Finding::warning(
                "mask.ratio",
                format!("{tokens} of {} patches are {what}", plan.kept + plan.hidden),
                "set another mask.ratio, or a smaller model.patch_size",
            ));
        }
    }
    if plan.steps == 0 {
        found.push(Finding::error(
            "optim.batch_size",
            format!(
                "{} images make no batch of {}, and the last batch is left out unless it is full",
                plan.images, plan.batch_size
            ),
            format!(
                "set optim.batch_size to at most {}, or data.drop_last=false",
                plan.images.max(1)
            ),
        ));
        return found;
    }
    if plan.accumulate > plan.batches_per_epoch {
        found.push(Finding::warning(
            "optim.accumulate",
            format!(
                "an epoch has {} batches, so no update has the {} images that the learning rate is scaled for",
                plan.batches_per_epoch, plan.effective_batch
            ),
            format!("set optim.accumulate to at most {}", plan.batches_per_epoch),
        ));
    }
    if plan.steps < 100 {
        found.push(Finding::warning(
            "optim.epochs",
            format!("the run has {} updates, too few to learn much", plan.steps),
            "more optim.epochs, or a smaller optim.batch_size",
        ));
    }
    let batch = plan.effective_batch;
    if plan.peak_lr > 1e-2 {
        found.push(Finding::warning(
            "optim.base_lr",
            format!(
                "the learning rate rises to {:.1e} = {:e} x {batch} / 256: AdamW diverges above about 1e-2",
                plan.peak_lr, config.optim.base_lr
            ),
            "set a smaller optim.base_lr",
        ));
    }
    if plan.peak_lr < 5e-5 {
        found.push(Finding::warning(
            "optim.base_lr",
            format!(
                "the learning rate rises only to {:.1e} = {:e} x {batch} / 256; the paper's rises to 2.4e-3",
                plan.peak_lr, config.optim.base_lr
            ),
            "set a larger optim.base_lr, or more images an update by optim.batch_size and optim.accumulate",
        ));
    }
    found
}

/// From what the images are like.
pub(super) fn of_images(config: &RunConfig, sample: &ImageSample) -> Vec<Finding> {
    let mut found = Vec::new();
    let (looked_at, broken) = (sample.looked_at, sample.broken.len());
    if let Some((name, reason)) = sample.broken.first() {
        let share = broken as f64 / looked_at as f64;
        let problem =
            format!("{broken} of {looked_at} images cannot be read, the first {name}: {reason}");
        // Of few images no share is known: one in a hundred that is broken may be among them.
        found.push(
            if broken >= 3 && share > 2.0 * config.data.max_broken_share {
                let remedy = "repair or delete them, or set data.max_broken_share";
                Finding::error("data.max_broken_share", problem, remedy)
            } else {
                let remedy = "they are left out; repair or delete them";
                Finding::warning("data.path", problem, remedy)
            },
        );
    }
    if broken == looked_at {
        return found;
    }
    if sample.enlarged > 1.5 {
        found.push(Finding::warning(
            "model.image_size",
            format!(
                "images of {} x {} are enlarged {:.1} times to {} x {}: operations without information",
                sample.width,
                sample.height,
                sample.enlarged,
                config.grid.width(),
                config.grid.height()
            ),
            "set a smaller model.image_size, and model.patch_size to go with it",
        ));
    }
    let cuts = config.data.augmentation != AugmentationKind::RandomResizedCrop;
    if cuts && sample.shape_kept < 0.5 {
        found.push(Finding::warning(
            "model.image_height",
            format!(
                "{:.0} % of an image of {} x {} is cut off",
                100.0 * (1.0 - sample.shape_kept),
                sample.width,
                sample.height
            ),
            "set model.image_height and model.image_width to the images' shape, or \
             data.augmentation=random-resized-crop",
        ));
    }
    found
}

/// From the memory that is needed and there.
pub(super) fn of_memory(
    config: &RunConfig,
    need: &RunMemory,
    have: Option<DeviceMemory>,
) -> Option<Finding> {
    let have = have?;
    let share = need.total as f64 / have.free as f64;
    let problem = format!(
        "the run needs about {:.1} GB of memory, and {:.1} GB are free",
        need.total as f64 / 1e9,
        have.free as f64 / 1e9
    );
    // What does not depend on the batch.
    let fixed = need.program + need.weights + need.gradients + need.optimizer;
    let remedy = if (fixed as f64) < 0.8 * have.free as f64 && config.optim.batch_size > 1 {
        "set a smaller optim.batch_size and, to keep the images of an update, a larger optim.accumulate"
    } else {
        "use a smaller model, or another device"
    };
    let key = "optim.batch_size";
    match share {
        share if share > 1.0 => Some(Finding::error(key, problem, remedy)),
        share if share > 0.85 => Some(Finding::warning(key, problem, remedy)),
        _ => None,
    }
}

/// From what was measured.
pub(super) fn of_speed(
    config: &RunConfig,
    speed: &Speed,
    cores: usize,
    workers: usize,
) -> Option<Finding> {
    let slowed = 1.0 - speed.together / speed.step;
    if !speed.loader_limits() && slowed < 0.25 {
        return None;
    }
    let problem = if speed.loader_limits() {
        format!(
            "updates wait for images {:.0} % of the time",
            100.0 * speed.waiting
        )
    } else {
        format!(
            "loading takes {:.0} % of the speed of updates, with which it shares the cores",
            100.0 * slowed
        )
    };
    let mut remedies = Vec::new();
    match config.data.source {
        DataSource::Folder | DataSource::Tar => remedies.push(format!(
            "make the images ready once with `mae-train pack` at {} pixels",
            config.grid.height().min(config.grid.width())
        )),
        DataSource::Synthetic => {
            remedies.push("drawn scenes cost more than files: use --data".into())
        }
        DataSource::Packed | DataSource::Cifar10 | DataSource::Cifar100 => {}
    }
    if workers < cores {
        remedies.push(format!("set run.workers={cores}, one a core"));
    }
    if config.data.color_jitter.is_some() {
        remedies.push("leave out data.color_jitter".into());
    }
    if remedies.is_empty() {
        remedies.push("use a machine with more cores, or train a larger model".into());
    }
    Some(Finding::warning("data", problem, remedies.join("; ")))
}

/// From how long the run will take.
pub(super) fn of_time(config: &RunConfig, time: &RunTime) -> Option<Finding> {
    (time.evaluations > 0.25 * time.updates).then(|| {
        Finding::warning(
            "run.eval_every",
            format!(
                "measuring what was learned takes about {:.0} % of the time of training",
                100.0 * time.evaluations / time.updates
            ),
            format!(
                "set a larger run.eval_every (now {})",
                config.run.eval_every
            ),
        )
    })
}

/// From the room on the disk.
pub(super) fn of_disk(disk: &RunDisk) -> Option<Finding> {
    let free = disk.free?;
    let problem = format!(
        "the run writes {:.1} GB, of it {} checkpoints of {:.1} GB, and {:.1} GB are free",
        disk.total as f64 / 1e9,
        disk.checkpoints,
        disk.checkpoint as f64 / 1e9,
        free as f64 / 1e9
    );
    let remedy = "set a smaller run.keep_checkpoints, or --out on another disk";
    let key = "run.keep_checkpoints";
    match disk.total as f64 / free as f64 {
        share if share > 1.0 => Some(Finding::error(key, problem, remedy)),
        share if share > 0.8 => Some(Finding::warning(key, problem, remedy)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::config;

    /// Checks that there is exactly the finding about `key`, or none.
    fn check(found: impl IntoIterator<Item = Finding>, expect: Option<(Severity, &str, &str)>) {
        let found: Vec<Finding> = found.into_iter().collect();
        match expect {
            None => assert_eq!(found, []),
            Some((severity, key, words)) => {
                assert_eq!(found.len(), 1, "{found:?}");
                assert_eq!((found[0].severity, found[0].key), (severity, key));
                let problem = &found[0].problem;
                assert!(problem.contains(words), "{problem} has no {words}");
            }
        }
    }

    fn warns<'a>(key: &'a str, words: &'a str) -> Option<(Severity, &'a str, &'a str)> {
        Some((Severity::Warning, key, words))
    }

    fn errs<'a>(key: &'a str, words: &'a str) -> Option<(Severity, &'a str, &'a str)> {
        Some((Severity::Error, key, words))
    }

    #[test]
    fn recipes_are_in_order() {
        check(of_configuration(&config(&[])), None);
        check(of_plan(&config(&[]), &plan(&[], 8192)), None);
        check(of_machine(&config(&[]), 2, false, true), None);
    }

    #[test]
    fn what_a_configuration_alone_shows() {
        let of = |keys: &[&str]| of_configuration(&config(keys));
        let key = "model.norm_pix_loss";
        let pixel = [
            "model.norm_pix_loss=true",
            "model.image_size=8",
            "model.patch_size=1",
        ];
        check(of(&pixel), warns(key, "one pixel"));
        let number = [&pixel[..], &["model.channels=1"]].concat();
        check(of(&number), errs(key, "NaN"));
        check(of(&pixel[1..]), None);
        check(
            of(&["model.norm_pix_loss=true", "model.patch_size=2"]),
            None,
        );

        let key = "optim.warmup_epochs";
        check(of(&["optim.warmup_epochs=7"]), warns(key, "58 %"));
        check(of(&["optim.warmup_epochs=6"]), None);

        let key = "data.augmentation";
        check(of(&["optim.epochs=200"]), warns(key, "200 epochs"));
        check(of(&["optim.epochs=199"]), None);
        check(of(&["optim.epochs=200", "data.hflip=true"]), None);

        let (never, key) = ("run.checkpoint_every=0", "run.checkpoint_every");
        let keys = [never, "run.checkpoint_minutes=0"];
        check(of(&keys), warns(key, "before the end"));
        check(of(&[never]), None);
    }

    #[test]
    fn what_does_not_fit_the_machine() {
        let of = |keys: &[&str], has_gpu| of_machine(&config(keys), 2, has_gpu, false);
        check(
            of(&["run.precision=bf16"], false),
            warns("run.precision", "bf16"),
        );
        let bf16 = config(&["run.precision=bf16"]);
        check(of_machine(&bf16, 2, false, true), None);
        check(
            of(&["run.precision=fp16"], false),
            warns("run.precision", "fp16"),
        );
        check(of(&[], true), warns("run.device", "GPU"));
        check(
            of(&["run.workers=3"], false),
            warns("run.workers", "3 threads"),
        );
        check(of(&["run.workers=2"], false), None);
    }

    fn plan(keys: &[&str], images: usize) -> Plan {
        Plan::new(&config(keys), images).unwrap()
    }

    #[test]
    fn what_the_sizes_show() {
        let of = |keys: &[&str], images| of_plan(&config(keys), &plan(keys, images));
        check(
            of(&["mask.ratio=0.96"], 8192),
            warns("mask.ratio", "2 of 64"),
        );
        check(
            of(&["mask.ratio=0.04"], 8192),
            warns("mask.ratio", "3 of 64"),
        );
        check(of(&["mask.ratio=0.93"], 8192), None);
        check(
            of(&[], 31),
            errs("optim.batch_size", "31 images make no batch of 32"),
        );
        check(
            of(&["data.drop_last=false"], 31),
            warns("optim.epochs", "12 updates"),
        );
        check(of(&[], 320), None);

        let keys = |accumulate| [accumulate, "optim.base_lr=1e-3", "optim.epochs=100"];
        let eleven = of(&keys("optim.accumulate=11"), 320);
        check(eleven, warns("optim.accumulate", "10 batches"));
        check(of(&keys("optim.accumulate=10"), 320), None);

        check(
            of(&["optim.base_lr=0.2"], 8192),
            warns("optim.base_lr", "2.5e-2"),
        );
        check(
            of(&["optim.base_lr=1.5e-4"], 8192),
            warns("optim.base_lr", "1.9e-5"),
        );
        check(
            of(&["optim.base_lr=1.5e-4", "optim.accumulate=4"], 8192),
            None,
        );
    }

    #[test]
    fn what_the_images_show() {
        let sample = ImageSample {
            looked_at: 64,
            height: 64,
            width: 64,
            enlarged: 1.0,
            shape_kept: 1.0,
            broken: Vec::new(),
        };
        let of = |keys: &[&str], sample: &ImageSample| of_images(&config(keys), sample);
        check(of(&[], &sample), None);
        let small = ImageSample {
            enlarged: 2.0,
            ..sample.clone()
        };
        check(of(&[], &small), warns("model.image_size", "2.0 times"));
        let long = ImageSample {
            shape_kept: 0.4,
            ..sample.clone()
        };
        check(of(&[], &long), warns("model.image_height", "60 %"));
        check(of(&["data.augmentation=random-resized-crop"], &long), None);

        let broken = |count| ImageSample {
            broken: vec![("a.jpg".into(), "is empty".into()); count],
            ..sample.clone()
        };
        check(of(&[], &broken(1)), warns("data.path", "a.jpg: is empty"));
        check(
            of(&[], &broken(3)),
            errs("data.max_broken_share", "3 of 64"),
        );
        check(
            of(&["data.max_broken_share=0.1"], &broken(3)),
            warns("data.path", "3 of 64"),
        );
        check(
            of(&[], &broken(64)),
            errs("data.max_broken_share", "64 of 64"),
        );
    }

    #[test]
    fn memory_and_disk_that_do_not_suffice() {
        let need = RunMemory::estimate(&config(&[]), 0, 2).unwrap();
        let have = |free| {
            Some(DeviceMemory {
                free,
                total: u64::MAX,
            })
        };
        let of = |have| of_memory(&config(&[]), &need, have);
        check(of(None), None);
        check(
            of(have(need.total - 1)),
            errs("optim.batch_size", "GB are free"),
        );
        check(
            of(have(need.total * 11 / 10)),
            warns("optim.batch_size", "GB are free"),
        );
        check(of(have(need.total * 2)), None);
        let remedy = |free| of(have(free)).unwrap().remedy;
        assert!(remedy(need.total - 1).contains("smaller optim.batch_size"));
        assert!(remedy(need.weights).contains("smaller model"));

        let disk = |free| {
            of_disk(&RunDisk {
                checkpoint: 300_000_000,
                checkpoints: 3,
                logs: 100_000_000,
                total: 1_000_000_000,
                free,
            })
        };
        check(disk(None), None);
        let key = "run.keep_checkpoints";
        check(
            disk(Some(999_000_000)),
            errs(key, "3 checkpoints of 0.3 GB"),
        );
        check(disk(Some(1_200_000_000)), warns(key, "1.2 GB are free"));
        check(disk(Some(1_300_000_000)), None);
    }

    #[test]
    fn what_slows_the_loop() {
        let of = |keys: &[&str], together, waiting| {
            let speed = Speed {
                together,
                waiting,
                ..crate::doctor::tests::SPEED
            };
            of_speed(&config(keys), &speed, 2, 1)
        };
        check(of(&[], 1400.0, 0.01), None);
        check(of(&[], 1000.0, 0.01), warns("data", "takes 33 %"));
        check(of(&[], 1000.0, 0.3), warns("data", "wait for images 30 %"));
        let remedy = |keys: &[&str]| of(keys, 1000.0, 0.3).unwrap().remedy;
        assert!(remedy(&[]).contains("run.workers=2"));
        let folder = ["data.source=folder", "data.path=photos"];
        assert!(remedy(&folder).contains("pack` at 64 pixels"));
    }

    #[test]
    fn evaluations_that_take_longer_than_training_should_bear() {
        let of = |evaluations| {
            let time = RunTime {
                start: 0.0,
                epoch: 1.0,
                updates: 100.0,
                pictures: 0.0,
                evaluations,
                checkpoints: 0.0,
                total: 100.0 + evaluations,
            };
            of_time(&config(&[]), &time)
        };
        check(of(30.0), warns("run.eval_every", "30 %"));
        check(of(20.0), None);
    }

    #[test]
    fn a_folder_with_a_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        check(of_folder(folder.path()), None);
        let config = folder.path().join("config.toml");
        std::fs::write(&config, "").unwrap();
        check(of_folder(folder.path()), errs("--out", "not of a run"));
        // One that has learned nothing yet is begun anew.
        std::fs::remove_file(config).unwrap();
        let run_dir = RunDir::create(folder.path()).unwrap();
        run_dir.write_config("pretrain", "").unwrap();
        check(of_folder(folder.path()), None);
        std::fs::create_dir(run_dir.checkpoints()).unwrap();
        check(of_folder(folder.path()), errs("--out", "holds a run"));
    }
}
