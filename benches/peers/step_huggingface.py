"""Hugging Face's `ViTMAEForPreTraining`, trained on images in memory: normalise, mask, forward, backward, AdamW.

In bf16 it runs under `torch.autocast`, as PyTorch recommends. Both of its implementations of attention are tried for a moment, and the faster one is measured.
"""

import argparse
import json
import pathlib
import statistics
import time

import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

import common

STEPS = json.loads((pathlib.Path(__file__).parents[1] / "steps.json").read_text())


def training_step(name, precision, attention, compiled):
    """A function that does one update on a batch of random images."""
    batch_size, dimensions = STEPS[name]["batch_size"], STEPS[name]["model"]
    size, channels = dimensions["image_height"], dimensions["channels"]
    config = ViTMAEConfig(
        image_size=size,
        patch_size=dimensions["patch_size"],
        num_channels=channels,
        hidden_size=dimensions["embed_dim"],
        num_hidden_layers=dimensions["depth"],
        num_attention_heads=dimensions["num_heads"],
        intermediate_size=int(dimensions["embed_dim"] * dimensions["mlp_ratio"]),
        decoder_hidden_size=dimensions["decoder_embed_dim"],
        decoder_num_hidden_layers=dimensions["decoder_depth"],
        decoder_num_attention_heads=dimensions["decoder_num_heads"],
        decoder_intermediate_size=int(dimensions["decoder_embed_dim"] * dimensions["mlp_ratio"]),
        layer_norm_eps=dimensions["layer_norm_eps"],
        norm_pix_loss=dimensions["norm_pix_loss"],
        mask_ratio=0.75,
    )
    config._attn_implementation = attention
    model = ViTMAEForPreTraining(config).train()
    # The fused one is the fastest of PyTorch's three.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    images = torch.randint(0, 256, (batch_size, channels, size, size), dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    dtype = getattr(torch, common.DTYPES[precision])

    def loss_of(images):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return model((images.float() / 255 - mean) / std).loss

    if compiled:
        loss_of = torch.compile(loss_of)

    def step():
        loss_of(images).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, batch_size


def times(step, seconds, least):
    """Seconds of each of at least `least` steps, until `seconds` have passed."""
    taken = []
    while len(taken) < least or sum(taken) < seconds:
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return taken


def faster_attention(name, precision, compiled):
    def trial(attention):
        step, _ = training_step(name, precision, attention, compiled)
        times(step, 0.0, 2)
        return min(times(step, 0.0, 2))

    return min(["sdpa", "eager"], key=trial)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", choices=STEPS, required=True)
    parser.add_argument("--precision", choices=common.DTYPES, default="fp32")
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    parser.add_argument("--attention", choices=["sdpa", "eager"], help="measure this one")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure")
    arguments = parser.parse_args()
    name, precision, compiled = arguments.config, arguments.precision, arguments.compile
    attention = arguments.attention or faster_attention(name, precision, compiled)
    step, batch_size = training_step(name, precision, attention, compiled)
    times(step, 0.0, 3)
    taken = times(step, arguments.seconds, 3)
    measured = {
        "images_per_s": batch_size * len(taken) / sum(taken),
        "step_ms": statistics.median(taken) * 1e3,
        "batches": len(taken),
        "seconds": sum(taken),
        # Without the compiler's own processes.
        "peak_rss_mb": common.status_kb("self", "VmHWM") * 1024 / 1e6 or None,
        "repeat_with": ["--attention", attention],
        "threads": torch.get_num_threads(),
    }
    common.report(measured, ["torch", "transformers"])


if __name__ == "__main__":
    main()
