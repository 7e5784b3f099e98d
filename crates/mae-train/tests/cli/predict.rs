//! Predictions: their files, their accuracy, interruptions, mistakes.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use mae_data::{Dataset, FolderDataset, ImageLoader, ImageLoaderConfig};
use mae_model::VitClassifier;
use mae_model::classifier::ClassifierConfig;
use mae_model::tensor_file::read_tensors;
use mae_train::data::batch::images_to_device;
use mae_train::eval::report::Report;
use mae_train::predict::Classifier;
use tch::{CModule, Device, Kind, Tensor};

use crate::embed::{check_message, read_npy, stuck};
use crate::program::{checkpoints, program, small, succeed, text};

const CLASSES: [&str; 3] = ["ant", "b, \"c\"", "dog"];

/// A pre-trained small model, labelled images of three colours, and an evaluation that learned from them.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new(protocols: &str, keys: &[&str]) -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        succeed(small(
            &world.path("run"),
            &["optim.epochs=1", "optim.warmup_epochs=0"],
        ));
        for i in 0..180 {
            let part = if i < 48 { "train" } else { "test" };
            world.draw(&format!("{part}/{}/{i:03}.png", CLASSES[i % 3]), i);
        }
        let mut command = program();
        command.arg("eval").arg("--from").arg(world.path("run"));
        command.arg("--data").arg(world.path("train"));
        command.arg("--val").arg(world.path("test"));
        command.args(["--protocols", protocols, "--out"]);
        command.arg(world.path("eval"));
        command.env("MAE_CACHE_DIR", world.path("cache"));
        let short = [
            "run.device=cpu",
            "run.workers=1",
            "data.val_crop=0.875",
            "finetune.epochs=3",
            "finetune.warmup_epochs=0",
            "finetune.batch_size=8",
            "finetune.base_lr=0.02",
            "linear.epochs=5",
            "linear.warmup_epochs=1",
            "linear.batch_size=16",
        ];
        for pair in short.iter().chain(keys) {
            command.args(["--set", pair]);
        }
        succeed(command);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Saves image `number`, of class `number % 3`, as `name`; not all of them are told apart with ease.
    fn draw(&self, name: &str, number: usize) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let noise = |i: usize| ((i * (number + 7) * 2_654_435_761) >> 7) % 200;
        let pixels = (0..20 * 16 * 3).map(|i| {
            let own = if i % 3 == number % 3 { 50 } else { 0 };
            (own + noise(i)) as u8
        });
        image::RgbImage::from_raw(20, 16, pixels.collect())
            .unwrap()
            .save(path)
            .unwrap();
    }

    fn predict(&self, from: &str, data: &str, out: &str, more: &[&str]) -> Command {
        let mut command = program();
        command.arg("predict").arg(self.path(data));
        command.arg("--from").arg(self.path(from));
        command.arg("--out").arg(self.path(out));
        command.args(["--device", "cpu"]).args(more);
        command
    }

    fn records(&self, csv: &str) -> (csv::StringRecord, Vec<csv::StringRecord>) {
        let mut csv = csv::Reader::from_path(self.path(csv)).unwrap();
        let headers = csv.headers().unwrap().clone();
        (headers, csv.records().map(Result::unwrap).collect())
    }

    /// Share of the validation images that a protocol was right about.
    fn top1(&self, protocol: &str) -> f64 {
        let report = std::fs::read(self.path("eval/eval.json")).unwrap();
        let report: Report = serde_json::from_slice(&report).unwrap();
        let row = (report.rows.iter()).find(|row| row.protocol == protocol);
        row.unwrap().top1
    }
}

#[test]
fn predictions_are_as_right_as_eval_says_and_all_files_agree() {
    let world = World::new("linear,partial:1,finetune", &["finetune.ema=0.9"]);
    for (protocol, folder) in [
        ("linear", "eval/linear-pre-trained"),
        ("partial:1", "eval/partial-1-pre-trained"),
        ("finetune", "eval/finetune-pre-trained"),
    ] {
        let out = format!("{}.csv", protocol.replace(':', "-"));
        let printed = text(&succeed(world.predict(folder, "test", &out, &[])).stdout);
        let top1 = world.top1(protocol);
        let words = format!("{:.2} % of 132 labelled images are right", 100.0 * top1);
        assert!(printed.contains(&words), "{words} in {printed}");
        let (headers, rows) = world.records(&out);
        assert_eq!(headers, ["path", "label", "class", "probability"][..]);
        let right = rows.iter().filter(|row| row[1] == row[2]).count();
        assert_eq!(right as f64 / 132.0, top1, "{protocol}");
        // They are no constant.
        let taken: BTreeSet<&str> = rows.iter().map(|row| &row[2]).collect();
        assert!(taken.len() > 1, "{protocol}: all are taken for {taken:?}");
        let picture = world.path(&out.replace("csv", "confusion.svg"));
        assert!(std::fs::read_to_string(picture).unwrap().contains("ant"));
    }

    let more = ["--top", "3", "--probabilities"];
    let mut command = world.predict("eval/finetune-pre-trained", "test", "all.csv", &more);
    command.arg(world.path("all.npy"));
    let printed = text(&succeed(command).stdout);
    assert!(printed.contains("all.npy, [132, 3] in f32"), "{printed}");
    let table: Vec<&str> = printed
        .lines()
        .filter(|line| line.starts_with("ant "))
        .collect();
    assert_eq!(table.len(), 1, "{printed}");
    assert!(table[0].contains("     44 "), "{}", table[0]);
    let probabilities = read_npy(&world.path("all.npy"));
    assert_eq!(probabilities.size(), [132, 3]);
    let sums = probabilities.sum_dim_intlist(1, false, Kind::Float);
    assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-5);
    let (headers, rows) = world.records("all.csv");
    assert_eq!(headers.len(), 8);
    assert_eq!((&headers[4], &headers[7]), ("class_2", "probability_3"));
    let (values, order) = probabilities.sort(1, true);
    for (i, row) in rows.iter().enumerate() {
        assert!(row[0].ends_with(".png") && row[0].contains(&row[1]));
        for place in 0..3 {
            let at = [i as i64, place as i64];
            let class = order.int64_value(&at) as usize;
            assert_eq!(&row[2 + 2 * place], CLASSES[class], "{row:?}");
            let probability: f32 = row[3 + 2 * place].parse().unwrap();
            assert_eq!(f64::from(probability), values.double_value(&at), "{row:?}");
        }
    }

    // What several classifiers could be meant by is listed.
    check_message(
        world.predict("eval", "test", "x.csv", &[]),
        &[
            "several classifiers",
            "finetune-pre-trained  ",
            "% top-1",
            "linear-pre-trained",
        ],
    );
    // One image; no labels, so no column for them.
    succeed(world.predict(
        "eval/finetune-pre-trained/best.safetensors",
        "test/ant/048.png",
        "one.csv",
        &[],
    ));
    let (headers, rows) = world.records("one.csv");
    assert_eq!(headers, ["path", "class", "probability"][..]);
    assert_eq!(rows.len(), 1);
}

#[test]
fn an_exported_classifier_gives_the_same_probabilities() {
    let world = World::new("linear,finetune", &[]);
    for folder in ["linear-pre-trained", "finetune-pre-trained"] {
        let folder = format!("eval/{folder}");
        let npy = world.path("p.npy");
        let more = ["--overwrite", "--probabilities", npy.to_str().unwrap()];
        succeed(world.predict(&folder, "test", "p.csv", &more));
        let mut command = program();
        command.args(["export", "--overwrite", "--from"]);
        command.arg(world.path(&folder)).arg("--torchscript");
        command.arg(world.path("classifier.pt"));
        let printed = text(&succeed(command).stdout);
        for words in [
            "the classifier of",
            "logits = classifier(images)  # [batch, 3]",
        ] {
            assert!(printed.contains(words), "{words} in {printed}");
        }
        let module = CModule::load(world.path("classifier.pt")).unwrap();
        let expected = read_npy(&npy);
        // Images as the program prepares them.
        let classifier = Classifier::open(world.path(&folder).join("classifier.safetensors"));
        let transform = classifier.unwrap().extraction().transform;
        let images: Arc<dyn Dataset> =
            Arc::new(FolderDataset::open(world.path("test"), 3).unwrap());
        let config = ImageLoaderConfig::new(transform.clone(), 132);
        let loader = ImageLoader::new(images, config).unwrap();
        let batch = loader.epoch(0, 0).next().unwrap().unwrap();
        let pixels = images_to_device(&batch, &transform, Device::Cpu).permute([0, 3, 1, 2]);
        let logits = module
            .forward_ts(&[pixels.to_kind(Kind::Float) / 255.0])
            .unwrap();
        let found = logits.softmax(-1, Kind::Float);
        assert!((found - expected).abs().max().double_value(&[]) < 1e-5);
    }
}

#[test]
fn classes_that_the_model_does_not_know_are_named_and_not_judged() {
    let world = World::new("linear", &[]);
    for i in 0..4 {
        let class = if i < 3 { "dog" } else { "yak" };
        world.draw(&format!("zoo/{class}/{i}.png"), i);
    }
    let printed = text(&succeed(world.predict("eval", "zoo", "zoo.csv", &[])).stdout);
    for words in [
        "does not know 1 of the data's classes",
        "yak",
        "of 3 labelled images",
    ] {
        assert!(printed.contains(words), "{words} in {printed}");
    }
    let (_, rows) = world.records("zoo.csv");
    assert_eq!((rows.len(), &rows[3][1]), (4, "yak"));

    // The share of the centre is remembered: the model sees what it was judged by.
    let model = world.path("eval/linear-pre-trained/classifier.safetensors");
    let (_, metadata) = read_tensors(&model).unwrap();
    assert!(
        metadata["classifier"].contains("\"crop_share\":0.875"),
        "{metadata:?}"
    );

    // A file without names numbers the classes.
    let model = VitClassifier::load(&model, Device::Cpu).unwrap();
    let config = ClassifierConfig {
        class_names: Vec::new(),
        ..model.config().clone()
    };
    let nameless = VitClassifier::new(&config, model.normalization(), Device::Cpu, 3).unwrap();
    nameless.save(&world.path("nameless.safetensors")).unwrap();
    succeed(world.predict("nameless.safetensors", "zoo", "numbers.csv", &[]));
    let (_, rows) = world.records("numbers.csv");
    assert!(rows.iter().all(|row| ["0", "1", "2"].contains(&&row[2])));
}

#[cfg(unix)]
#[test]
fn stopped_in_the_middle_it_goes_on_and_the_files_are_the_same() {
    let world = World::new("linear", &[]);
    for i in 0..1200 {
        // Broken ones from the sixth batch on, of which so much is said that a pipe is full: see `stuck`.
        let name = format!("photos/x/{i:04}-{}.png", "n".repeat(200));
        match i {
            5 | 640..1100 => {
                std::fs::create_dir_all(world.path("photos/x")).unwrap();
                std::fs::write(world.path(&name), "no image").unwrap();
            }
            _ => world.draw(&name, i),
        }
    }
    let bytes = |name: &str| std::fs::read(world.path(name)).unwrap();
    for with_probabilities in [false, true] {
        let kind = if with_probabilities { "npy" } else { "csv" };
        let start = |out: &str, workers: &str| {
            let more = [
                "--workers",
                workers,
                "--max-broken-share",
                "0.5",
                "--top",
                "2",
            ];
            let mut command = world.predict("eval", "photos", &format!("{out}.csv"), &more);
            if with_probabilities {
                command.arg("--probabilities");
                command.arg(world.path(&format!("{out}.npy")));
            }
            command
        };
        let (whole, stopped) = (format!("whole-{kind}"), format!("stopped-{kind}"));
        succeed(start(&whole, "1"));
        let journal = world.path(&format!("{stopped}.csv.partial.json"));
        let mut child = stuck(start(&stopped, "2"), &journal);
        child.kill().unwrap();
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        child.wait().unwrap();
        assert!(
            journal.exists() && !world.path(&format!("{stopped}.csv")).exists(),
            "{said}"
        );

        // Another model makes no whole with it.
        let mut other = start(&stopped, "1");
        other.args(["--precision", "bf16"]);
        check_message(other, &["an unfinished prediction", "other settings"]);

        let mut rest = start(&stopped, "3");
        if !with_probabilities {
            // Asked for late, they are those of the whole, too.
            rest.arg("--probabilities").arg(world.path("late.npy"));
        }
        let output = succeed(rest);
        assert!(text(&output.stderr).contains("going on where it stopped: "));
        let printed = text(&output.stdout);
        assert!(printed.contains("left out 461 broken images:"), "{printed}");
        assert!(bytes(&format!("{stopped}.csv")) == bytes(&format!("{whole}.csv")));
        if with_probabilities {
            assert!(bytes(&format!("{stopped}.npy")) == bytes(&format!("{whole}.npy")));
        }
        assert!(!journal.exists());
        assert!(!world.path(&format!("{stopped}.csv.partial")).exists());
    }
    assert!(bytes("late.npy") == bytes("whole-npy.npy"));
    let (_, rows) = world.records("whole-csv.csv");
    assert_eq!(rows.len(), 739);
    assert_eq!(read_npy(&world.path("whole-npy.npy")).size(), [739, 3]);
}

#[test]
fn mistakes_are_explained() {
    let world = World::new("knn,linear", &[]);
    let out = "x.csv";
    check_message(
        world.predict("run", "test", out, &[]),
        &[
            "--from",
            "is a pre-training run, which knows no classes",
            "--protocols finetune",
        ],
    );
    let model = checkpoints(&world.path("run"))
        .pop()
        .unwrap()
        .join("model.safetensors");
    std::fs::copy(model, world.path("mae.safetensors")).unwrap();
    check_message(
        world.predict("mae.safetensors", "test", out, &[]),
        &[
            "a pre-trained encoder, which knows no classes",
            "mae-train eval --from",
        ],
    );
    check_message(
        world.predict("eval/knn-pre-trained", "test", out, &[]),
        &["nearest neighbours and the attentive probe leave no classifier"],
    );
    check_message(
        world.predict("test", "test", out, &[]),
        &["is no folder of an evaluation"],
    );
    check_message(
        world.predict("absent", "test", out, &[]),
        &["there is no such file or folder"],
    );
    check_message(
        world.predict("eval", "test", out, &["--top", "4"]),
        &["--top 4: expected 1 to 3"],
    );
    check_message(
        world.predict("eval", "test", out, &["--probabilities", "p.txt"]),
        &["p.txt: expected a name that ends in .npy"],
    );
    check_message(world.predict("eval", "absent", out, &[]), &["absent"]);
    succeed(world.predict("eval", "test", out, &[]));
    check_message(
        world.predict("eval", "test", out, &[]),
        &["x.csv is there already: replace it with --overwrite"],
    );
    let before = std::fs::read(world.path(out)).unwrap();
    succeed(world.predict("eval", "test", out, &["--overwrite"]));
    assert_eq!(before, std::fs::read(world.path(out)).unwrap());
    let file = "eval/linear-pre-trained/classifier.safetensors";
    check_message(
        world.predict(file, "test", file, &["--overwrite"]),
        &["is of what is to be read"],
    );
    let wave = Tensor::zeros([4, 4], (Kind::Float, Device::Cpu));
    let model = VitClassifier::load(&world.path(file), Device::Cpu).unwrap();
    assert!(model.set_head(&wave, &wave).is_err());
}

#[test]
fn classifiers_are_converted_as_other_programs_describe_them() {
    let world = World::new("linear,finetune", &["features.pool=class"]);
    let convert = |from: &str, to: &str, more: &[&str]| {
        let mut command = program();
        command.arg("convert").arg(world.path(from));
        command.arg(world.path(to)).args(more);
        command
    };
    let config = |folder: &str| -> serde_json::Value {
        let text = std::fs::read(world.path(folder).join("config.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let (linear, tuned) = ("eval/linear-pre-trained", "eval/finetune-pre-trained");
    succeed(convert(linear, "hf", &["--format", "huggingface"]));
    let hf = config("hf");
    assert_eq!(hf["architectures"][0], "ViTForImageClassification");
    assert_eq!(hf["id2label"]["1"], CLASSES[1]);
    assert_eq!(hf["label2id"]["dog"], 2);
    let (tensors, _) = read_tensors(&world.path("hf/model.safetensors")).unwrap();
    assert_eq!(tensors["classifier.weight"].size(), [3, 32]);
    assert!(tensors.contains_key("vit.layernorm.weight"));
    let prepared = std::fs::read_to_string(world.path("hf/preprocessor_config.json")).unwrap();
    // 16 pixels of which the centre crop takes 0.875.
    assert!(prepared.contains("\"shortest_edge\": 18"), "{prepared}");

    succeed(convert(tuned, "timm", &["--format", "timm"]));
    let timm = config("timm");
    assert_eq!(timm["num_classes"], 3);
    assert_eq!(timm["model_args"]["global_pool"], "avg");
    assert_eq!(timm["model_args"]["fc_norm"], true);
    assert_eq!(timm["label_names"][0], "ant");
    assert_eq!(timm["pretrained_cfg"]["crop_pct"], 0.875);

    let printed = text(&succeed(convert(tuned, "beit", &["--format", "huggingface"])).stdout);
    assert!(printed.contains("BeitForImageClassification"), "{printed}");
    let beit = config("beit");
    assert_eq!(beit["model_type"], "beit");
    assert_eq!(beit["id2label"]["0"], "ant");
    let (tensors, _) = read_tensors(&world.path("beit/model.safetensors")).unwrap();
    assert!(tensors.contains_key("beit.pooler.layernorm.weight"));
    assert!(tensors.contains_key("beit.encoder.layer.1.attention.attention.value.bias"));
    assert!(
        !tensors
            .keys()
            .any(|key| key.starts_with("vit.") || key.ends_with("key.bias"))
    );

    check_message(
        convert(tuned, "x.safetensors", &[]),
        &["its file is this project's already"],
    );
    check_message(
        convert(tuned, "x", &["--format", "timm", "--part", "encoder"]),
        &["is a classifier, which is converted as it is"],
    );
}
