//! One transformer block on the CPU: forward, and backward with the gradients of all weights.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mae_kernels::{
    Bf16, BlockShape, BlockWeights, Gemm, MatrixProduct, backward, forward, matmul_flops,
};

/// Name, images, tokens, width and heads: the encoders of ViT-B/16 at 224 and of ViT-Ti/2 at 32, three quarters masked.
const BLOCKS: [(&str, usize, usize, usize, usize); 2] = [
    ("768 wide, 50 tokens", 16, 50, 768, 12),
    ("192 wide, 65 tokens", 128, 65, 192, 3),
];

fn blocks(criterion: &mut Criterion) {
    for (name, images, tokens, dim, heads) in BLOCKS {
        let shape = BlockShape {
            images,
            tokens,
            first_query: 0,
            dim,
            heads,
            hidden: 4 * dim,
            eps: 1e-6,
        };
        let lens = shape.weight_lens();
        let wave = |len: usize| -> Vec<f32> { (0..len).map(|i| (i as f32 * 0.7).sin()).collect() };
        let weights = BlockWeights::from_array(lens.as_array().map(|&len| {
            wave(len)
                .iter()
                .map(|value| 0.05 * value)
                .collect::<Vec<_>>()
        }));
        let weights = BlockWeights::from_array(weights.as_array().map(Vec::as_slice));
        let (x, grad_y) = (wave(shape.input_len()), wave(shape.output_len()));
        let mut saved = vec![0.0; shape.saved_len()];
        let mut y = vec![0.0; shape.output_len()];
        let mut work = vec![0.0; shape.work_len()];
        let mut grad_x = vec![0.0; shape.input_len()];
        let mut grads = lens.as_array().map(|&len| vec![0.0; len]);

        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(images as u64));
        for (by, product) in products() {
            group.bench_function(format!("forward, {by}"), |b| {
                b.iter(|| forward(product, &shape, &weights, None, &x, &mut saved, &mut y))
            });
            group.bench_function(format!("backward, {by}"), |b| {
                b.iter(|| {
                    let grads = BlockWeights::from_array(grads.each_mut().map(Vec::as_mut_slice));
                    backward(
                        product,
                        &shape,
                        &weights,
                        None,
                        &x,
                        &saved,
                        &grad_y,
                        &mut work,
                        &mut grad_x,
                        grads,
                    )
                })
            });
        }
        group.finish();
    }
}

/// Those that this processor has.
fn products() -> Vec<(&'static str, &'static dyn MatrixProduct)> {
    let bf16 = Bf16::here().map(|product| (product.instructions(), product as _));
    std::iter::once(("gemm", &Gemm as _)).chain(bf16).collect()
}

/// What `mfu` is a share of.
fn peak(criterion: &mut Criterion) {
    for (by, product) in products() {
        let gflops = matmul_flops(product) / 1e9;
        println!("matrix products by {by} reach {gflops:.0} GFLOP/s on one thread");
    }
    criterion.bench_function("measuring the peak", |b| b.iter(|| matmul_flops(&Gemm)));
}

criterion_group!(benches, blocks, peak);
criterion_main!(benches);
