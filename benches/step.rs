//! One whole training step: forward, backward, gradient norm, AdamW.

use std::rc::Rc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mae_train::config::{Source, read};
use mae_train::distributed::World;
use mae_train::pretrain::TrainState;
use mae_train::{data, reconstruct};

/// ViT-Tiny at 64 x 64 in patches of 8, a batch of 64 drawn scenes.
fn step(criterion: &mut Criterion) {
    const BATCH: usize = 64;
    let overrides = [
        "model.preset=tiny".to_string(),
        "model.embed_dim=192".into(),
        "model.depth=12".into(),
        "model.num_heads=3".into(),
        "run.device=cpu".into(),
        format!("optim.batch_size={BATCH}"),
    ];
    let config = read(&Source::Recipe("quickstart".into()), None, &overrides)
        .and_then(|config| config.resolve());
    let mut config = config.expect("a valid recipe");
    let (grid, seed) = (config.grid, config.seed);
    let scenes = data::open(&config.data, &grid, seed).expect("drawn scenes need no files");
    let normalization = data::settle_normalization(&mut config.data, &grid, seed, scenes.as_ref())
        .expect("scenes are never broken");
    let loader = data::loader(&config, scenes, &World::alone()).expect("more scenes than a batch");
    let batch = loader
        .epoch(0, 0)
        .next()
        .expect("a first batch")
        .expect("scenes are never broken");
    let mut state =
        TrainState::new(&config, &normalization, &Rc::new(World::alone())).expect("a valid model");

    let mut group = criterion.benchmark_group("step");
    group
        .throughput(Throughput::Elements(BATCH as u64))
        .sample_size(10);
    group.bench_function("tiny, 64 x 64, patch 8", |b| {
        b.iter(|| {
            state
                .update(std::slice::from_ref(&batch), 1e-3)
                .expect("the batch fits")
        })
    });
    group.bench_function("picture of 64 reconstructions", |b| {
        b.iter(|| reconstruct::draw(&state.model, &batch).expect("the batch fits"))
    });
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
