//! The paper's variants, from the command to pictures, resumes and evaluation.

use std::path::Path;

use mae_model::MaskedAutoencoderViT;
use mae_report::{Record, read_metrics};

use crate::pretrain::check_resume;
use crate::program::{checkpoints, program, small, succeed, text};

const QUICK: &[&str] = &["optim.epochs=1", "optim.warmup_epochs=0"];

/// The resolved `[model]` of the small model with more keys.
fn model_section(more: &[&str]) -> String {
    let mut command = program();
    command.arg("config");
    for pair in crate::program::SMALL.iter().chain(more) {
        command.args(["--set", pair]);
    }
    let config = text(&succeed(command).stdout);
    let start = config.find("[model]").unwrap();
    let end = start + config[start..].find("[data]").unwrap();
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

    let mut eval = program();
    eval.arg("eval").arg("--from").arg(run);
    eval.args(["--protocols", "knn", "--set", "run.device=cpu", "--out"])
        .arg(run.join("judged"))
        .env("MAE_CACHE_DIR", run.join("cache"));
    assert!(text(&succeed(eval).stdout).contains("knn"));
    model
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
    check_resume("-KILL", None, "1", LOSS_AND_ENCODER);
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
