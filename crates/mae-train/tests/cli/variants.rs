//! The paper's variants, from the command to pictures, resumes and evaluation.

use std::path::Path;

use mae_model::{MaskedAutoencoderViT, Tokenizer};
use mae_report::{Record, read_metrics};

use crate::program::{
    Interruption, SMALL, check_resume, checkpoints, fail, program, small, succeed, text,
};

const QUICK: &[&str] = &["optim.epochs=1", "optim.warmup_epochs=0"];

/// The resolved `[model]` of the small model with more keys.
fn model_section(more: &[&str]) -> String {
    let mut command = program();
    command.arg("config");
    for pair in SMALL.iter().chain(more) {
        command.args(["--set", pair]);
    }
    let config = text(&succeed(command).stdout);
    let start = config.find("[model]").unwrap();
    let end = start + config[start..].find("[mask]").unwrap();
    config[start..end].to_string()
}

/// Trains an epoch, looks at what it leaves, and judges the encoder.
fn check_run(run: &Path, more: &[&str]) -> MaskedAutoencoderViT {
    succeed(small(run, &[QUICK, more].concat()));
    let picture = image::open(run.join("reconstructions/epoch-0001.png")).unwrap();
    assert!(picture.width() > 1000 && picture.height() > 500);
    let file = checkpoints(run).pop().unwrap().join("model.safetensors");
    let model = MaskedAutoencoderViT::load(&file, tch::Device::Cpu).unwrap();
    let records = read_metrics(&run.join("metrics.jsonl")).unwrap();
    let Some(Record::Epoch {
        flops_per_image, ..
    }) = records.last()
    else {
        panic!("the last record is {:?}", records.last())
    };
    let expected = model.config().flops(0.75).unwrap().training();
    assert_eq!(*flops_per_image, Some(expected));

    judge(run, "judged");
    model
}

/// Judges the encoder of a run, into a folder in it.
fn judge(run: &Path, out: &str) {
    let mut eval = program();
    eval.arg("eval").arg("--from").arg(run);
    eval.args(["--protocols", "knn", "--set", "run.device=cpu", "--out"])
        .arg(run.join(out))
        .env("MAE_CACHE_DIR", run.join("cache"));
    assert!(text(&succeed(eval).stdout).contains("knn"));
}

/// A configuration that must be refused with these words.
fn refused(more: &[&str], expected: &str) {
    let mut command = program();
    command.arg("config");
    for pair in SMALL.iter().chain(more) {
        command.args(["--set", pair]);
    }
    let message = fail(command);
    assert!(message.contains(expected), "{message}");
}

const LOSS_AND_ENCODER: &[&str] = &["model.loss_region=all", "model.encoder_mask_tokens=true"];

#[test]
fn variants_of_loss_and_encoder_train_draw_and_are_judged() {
    let folder = tempfile::tempdir().unwrap();
    let model = check_run(&folder.path().join("run"), LOSS_AND_ENCODER);
    assert!(model.parameters().contains_key("encoder_mask_token"));
}

#[test]
fn variants_of_loss_and_encoder_resume_exactly() {
    check_resume(small, &Interruption::Kill, "1", LOSS_AND_ENCODER);
}

/// A resolved configuration stays what it is when further targets come: its hash names experiments.
#[test]
fn a_resolved_model_says_which_variant_it_is() {
    let dimensions = "[model]\nimage_height = 16\nimage_width = 16\npatch_size = 4\nchannels = 3\n\
        embed_dim = 32\ndepth = 2\nnum_heads = 2\n\
        decoder_embed_dim = 16\ndecoder_depth = 1\ndecoder_num_heads = 2\n\
        mlp_ratio = 4.0\nlayer_norm_eps = 0.000001\nnorm_pix_loss = false\n";
    assert_eq!(
        model_section(&[]).trim_end(),
        dimensions.to_string()
            + "target = \"pixels\"\nloss_region = \"masked\"\nencoder_mask_tokens = false"
    );
    assert_eq!(
        model_section(LOSS_AND_ENCODER).trim_end(),
        dimensions.to_string()
            + "target = \"pixels\"\nloss_region = \"all\"\nencoder_mask_tokens = true"
    );
}

const PCA: &[&str] = &["model.target=pca", "model.pca_components=12"];

#[test]
fn principal_components_are_found_once_and_stay_with_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let model = check_run(&run, PCA);
    assert_eq!(model.parameters()["decoder_pred.bias"].size(), [12]);
    let basis = &model.parameters()["target.components"];
    let lengths = basis
        .square()
        .sum_dim_intlist(1i64, false, tch::Kind::Float);
    assert!((lengths - 1.0).abs().max().double_value(&[]) < 1e-5);

    // Found again from the seed, whatever else is set; then not at all.
    let said = |command| text(&succeed(command).stderr);
    let again = folder.path().join("again");
    let more = ["optim.batch_size=16", "run.workers=2"];
    let words = said(small(&again, &[QUICK, PCA, &more].concat()));
    let line = "12 principal components explain ";
    assert!(
        words.contains(line) && words.contains("of 2560 patches of 160 images"),
        "{words}"
    );
    let file = checkpoints(&again).pop().unwrap().join("model.safetensors");
    let found = MaskedAutoencoderViT::load(&file, tch::Device::Cpu).unwrap();
    for key in ["target.mean", "target.components"] {
        assert_eq!(found.parameters()[key], model.parameters()[key], "{key}");
    }
    let mut resumed = program();
    resumed.args(["pretrain", "--resume", "--out"]).arg(&again);
    assert!(!said(resumed).contains(line));
}

#[test]
fn a_run_on_principal_components_resumes_exactly() {
    check_resume(small, &Interruption::Kill, "1", PCA);
}

#[test]
fn a_resolved_target_has_its_own_keys_only() {
    let section = model_section(&["model.target=pca", "model.pca_components=12"]);
    assert!(
        section.contains("norm_pix_loss = false\ntarget = \"pca\"\n"),
        "{section}"
    );
    assert!(
        section.ends_with("encoder_mask_tokens = false\npca_components = 12\n\n"),
        "{section}"
    );
    refused(
        &["model.target=pca"],
        "`pca_components` is 96, expected 1 to 48",
    );
    refused(&["model.pca_components=12"], "unless `target` is \"pca\"");
    let both = [
        "model.target=pca",
        "model.pca_components=12",
        "model.norm_pix_loss=true",
    ];
    refused(&both, "`norm_pix_loss` is true, expected false");
}

/// A tokenizer of the small model's patches in `run`, trained for a moment; the key that names it.
fn train_tokenizer(run: &Path) -> String {
    let mut command = program();
    command.arg("tokenizer").arg("--out").arg(run);
    for pair in [
        "model.image_size=16",
        "model.patch_size=4",
        "model.vocabulary=32",
        "model.width=16",
        "data.samples=160",
        "optim.epochs=2",
        "optim.batch_size=8",
        "run.device=cpu",
        "run.workers=1",
    ] {
        command.args(["--set", pair]);
    }
    succeed(command);
    format!("data.tokenizer={}", run.display())
}

#[test]
fn tokens_are_predicted_and_the_run_needs_the_tokenizers_file_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = folder.path().join("tokenizer");
    let key = train_tokenizer(&tokenizer);
    let tokens = ["model.target=tokens", &key];
    let section = model_section(&tokens);
    assert!(
        section.contains("norm_pix_loss = false\ntarget = \"tokens\"\n"),
        "{section}"
    );
    let of_tokenizer = "[model.tokenizer]\nimage_height = 16\nimage_width = 16\npatch_size = 4\nchannels = 3\n\
        vocabulary = 32\nwidth = 16\nblocks = 1\n\n";
    assert!(section.ends_with(of_tokenizer), "{section}");

    let run = folder.path().join("run");
    let model = check_run(&run, &tokens);
    assert_eq!(model.parameters()["decoder_pred.bias"].size(), [32]);
    let trained = checkpoints(&tokenizer)
        .pop()
        .unwrap()
        .join("model.safetensors");
    let trained = Tokenizer::load(&trained, tch::Device::Cpu).unwrap();
    assert_eq!(model.normalization(), trained.normalization());
    for (key, weight) in trained.parameters() {
        assert_eq!(
            weight,
            model.parameters()[&format!("target.{key}")],
            "{key}"
        );
    }
    let first = read_metrics(&run.join("metrics.jsonl")).unwrap().remove(0);
    let Record::Step { loss, .. } = first else {
        panic!("the first record is {first:?}")
    };
    assert!(
        (loss - 32f64.ln()).abs() < 0.5,
        "{loss}, not yet better than chance"
    );

    std::fs::remove_dir_all(&tokenizer).unwrap();
    let mut resumed = program();
    resumed.args(["pretrain", "--resume", "--out"]).arg(&run);
    succeed(resumed);
    judge(&run, "judged-without");

    let message = fail(small(&folder.path().join("another"), &tokens));
    assert!(
        message.contains("`data.tokenizer`") && message.contains("no such file"),
        "{message}"
    );
}

#[test]
fn a_run_on_tokens_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let key = train_tokenizer(&folder.path().join("tokenizer"));
    check_resume(
        small,
        &Interruption::Kill,
        "1",
        &["model.target=tokens", &key],
    );
}

#[test]
fn tokenizers_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let key = train_tokenizer(&folder.path().join("tokenizer"));
    refused(&["model.target=tokens"], "`data.tokenizer` is missing");
    refused(&[&key], "has no effect unless model.target=tokens");
    let tokens = ["model.target=tokens", &key];
    let and = |more: &'static str| [&tokens[..], &[more]].concat();
    refused(
        &and("model.patch_size=8"),
        "`tokenizer.patch_size` is 4, expected 8",
    );
    refused(
        &and("model.channels=1"),
        "`tokenizer.channels` is 3, expected 1",
    );
    refused(
        &and("data.normalization=imagenet"),
        "`data.normalization` is not the tokenizer's",
    );
    refused(
        &and("model.norm_pix_loss=true"),
        "`norm_pix_loss` is true, expected false",
    );
    let absent = ["model.target=tokens", "data.tokenizer=absent"];
    refused(&absent, "absent: there is no such file");

    // Of a Masked Autoencoder, not of a tokenizer.
    let run = folder.path().join("run");
    succeed(small(&run, QUICK));
    let other = format!("data.tokenizer={}", run.display());
    refused(
        &["model.target=tokens", &other],
        "metadata key `tokenizer` is missing",
    );
}
