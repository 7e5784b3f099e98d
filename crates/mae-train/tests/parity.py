#!/usr/bin/env python3
"""Compare converted and exported weights with the programs they come from and go to.

Random models of transformers, timm and in the layout of the MAE authors' files go through `mae-train convert`, and what
this project computes with them is compared with what those programs compute; its own models go the other way.
Loading must emit no warning, and what comes back from a round trip must be the same bits.
What `mae-train export` writes is run by ONNX Runtime and PyTorch, and checked by ONNX's own checker.

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 transformers==5.23.0 timm==1.0.31 safetensors pillow numpy onnx==1.23.2 onnxruntime==1.32.0
    cargo build --release -p mae-train -p mae-model --bins --examples
    venv/bin/python crates/mae-train/tests/parity.py > docs/results/parity.md

It prints the page of results and exits with 1 if a comparison fails. `--target DIR` names cargo's folder of programs,
`target/release` by default.
"""

import argparse
import contextlib
import csv
import io
import json
import logging
import platform
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy
import onnx
import onnxruntime
import safetensors
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BeitForImageClassification, ViTForImageClassification, ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel

LIMIT = 1e-5
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])

TINY = dict(
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    image_size=24,
    patch_size=4,
    decoder_hidden_size=32,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=64,
    mask_ratio=0.75,
)
BASE = dict(layer_norm_eps=1e-6, norm_pix_loss=True)


class Page:
    """Rows of the table, and whether all are good."""

    def __init__(self):
        self.rows = []
        self.failed = False

    def row(self, model, way, what, value, good):
        self.rows.append((model, way, what, value))
        self.failed |= not good
        print(f"{model}: {way}: {what}: {value}{'' if good else '  <-- FAILED'}", file=sys.stderr)

    def close(self, model, way, what, ours, theirs):
        error = relative(ours, theirs)
        self.row(model, way, what, f"{error:.1e}", error < LIMIT)

    def equal(self, model, way, what, a, b):
        same = a.keys() == b.keys() and all(
            a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a
        )
        self.row(model, way, what, "equal" if same else "DIFFERENT", same)

    def silent(self, model, way, what, said):
        self.row(model, way, what, "none" if not said else f"WARNINGS: {said}", not said)


def relative(ours, theirs):
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    ours, theirs = ours.double(), theirs.double()
    return ((ours - theirs).norm() / theirs.norm()).item()


class Programs:
    """This project's programs, run in a folder of their own."""

    def __init__(self, target, folder):
        self.target, self.folder = target, folder

    def convert(self, source, to, *more):
        command = [self.target / "mae-train", "convert", source, to, *more]
        self.check(command)
        return self.folder / to

    def run(self, *words):
        self.check([self.target / "mae-train", *words])

    def check(self, command):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{command} failed: {done.stderr}")

    def forward(self, model, inputs):
        given, out = self.folder / "in.safetensors", self.folder / "out.safetensors"
        save_file(inputs, given)
        subprocess.run([self.target / "examples" / "forward", model, given, out], check=True)
        return load_file(out)

    def path(self, name):
        return self.folder / name


@contextlib.contextmanager
def listening():
    """Everything that a client warns of or prints: by logging, by `warnings`, or on its own."""
    heard = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("transformers", "timm", "torch")]
    transformers.utils.logging.disable_progress_bar()
    out, err = io.StringIO(), io.StringIO()
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                yield heard
        heard += [str(warning.message) for warning in caught]
        heard += [text for text in (out.getvalue(), err.getvalue()) if text.strip()]
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def draw(model, seed):
    """Every parameter drawn at a scale at which the output depends on it; positions stay."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "pos" in name:
                continue
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() >= 2 and "token" not in name:
                parameter.copy_(values / parameter[0].numel() ** 0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * values)
            else:
                parameter.copy_(0.2 * values)
    return model.eval()


def inputs(height, width, channels, patch, ratio=0.75, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    patches = (height // patch) * (width // patch)
    return dict(
        images=torch.randint(
            0, 256, (batch, height, width, channels), dtype=torch.uint8, generator=generator
        ),
        noise=torch.rand((batch, patches), generator=generator),
        kept=torch.tensor([int(patches * (1 - ratio))]),
    )


def normalized(images, statistics):
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in statistics)
    return ((images.double() / 255 - mean) / std).permute(0, 3, 1, 2).float()


def compare_mae(page, name, way, ours, model, given, statistics):
    pixels = normalized(given["images"], statistics)
    with torch.no_grad():
        theirs = model(pixels, noise=given["noise"])
        latent = model.vit(pixels, noise=given["noise"]).last_hidden_state
    page.close(name, way, "latent", ours["latent"], latent)
    page.close(name, way, "prediction", ours["pred"], theirs.logits)
    page.close(name, way, "loss", ours["loss"], theirs.loss)


def compare_tokens(page, name, way, ours, tokens):
    """Class token and mean of the patch tokens, of whole images."""
    page.close(name, way, "class token", ours["class_token"], tokens[:, 0])
    page.close(name, way, "mean of patch tokens", ours["mean"], tokens[:, 1:].mean(1))


def hf_tokens(model, given, statistics):
    """Of all patches, in order: transformers shuffles them even if none is hidden."""
    model.config.mask_ratio = 0.0
    noise = torch.arange(given["noise"].shape[1]).float().expand_as(given["noise"])
    with torch.no_grad():
        return model(normalized(given["images"], statistics), noise=noise).last_hidden_state


def hf_attention(model, given, statistics):
    """What the class token heeds in the last block."""
    model.set_attn_implementation("eager")
    model.config.mask_ratio = 0.0
    noise = torch.arange(given["noise"].shape[1]).float().expand_as(given["noise"])
    with torch.no_grad():
        found = model(normalized(given["images"], statistics), noise=noise, output_attentions=True)
    return found.attentions[-1][:, :, 0]


def load(page, name, way, what, function):
    with listening() as heard:
        model = function()
    page.silent(name, way, what, heard)
    return model.eval()


def huggingface(page, programs, name, config, statistics):
    """transformers -> ours -> transformers."""
    model = draw(ViTMAEForPreTraining(ViTMAEConfig(**config)), seed=1)
    config = model.config
    source = programs.path(f"{name}-hf")
    model.save_pretrained(source)
    size = {"height": config.image_size, "width": config.image_size}
    ViTImageProcessor(size=size, image_mean=statistics[0], image_std=statistics[1]).save_pretrained(source)
    native = programs.convert(source, programs.path(f"{name}.safetensors"))
    given = inputs(config.image_size, config.image_size, config.num_channels, config.patch_size)
    ours = programs.forward(native, given)
    way = "transformers to ours"
    compare_mae(page, name, way, ours, model, given, statistics)
    compare_tokens(page, name, way, ours, hf_tokens(model.vit, given, statistics))
    page.close(name, way, "attention of the class token", ours["class_attention"], hf_attention(model.vit, given, statistics))
    model.config.mask_ratio = 0.75

    back = programs.convert(native, programs.path(f"{name}-back"), "--format", "huggingface")
    way = "and back"
    again = load(page, name, way, "warnings of ViTMAEForPreTraining", lambda: ViTMAEForPreTraining.from_pretrained(back))
    page.equal(name, way, "weights", again.state_dict(), model.state_dict())
    settings = ("layer_norm_eps", "norm_pix_loss", "num_attention_heads", "decoder_num_attention_heads", "image_size")
    same = all(getattr(again.config, key) == getattr(config, key) for key in settings)
    page.row(name, way, "configuration", "equal" if same else "DIFFERENT", same)
    # That a warning would be heard: an encoder alone leaves out the decoder of a whole model, and says so.
    with listening() as heard:
        ViTMAEModel.from_pretrained(back)
    hears = any("decoder." in text for text in heard)
    page.row(name, way, "ViTMAEModel from the folder of the whole model", "lists the decoder as left out" if hears else "SILENT", hears)
    encoder = programs.convert(source, programs.path(f"{name}-encoder"), "--format", "huggingface", "--part", "encoder")
    vit = load(page, name, way, "warnings of ViTMAEModel", lambda: ViTMAEModel.from_pretrained(encoder))
    page.equal(name, way, "weights of the encoder", vit.state_dict(), model.vit.state_dict())
    processor = ViTImageProcessor.from_pretrained(back)
    same = list(processor.image_mean) == statistics[0] and list(processor.image_std) == statistics[1]
    page.row(name, way, "mean and standard deviation", "equal" if same else "DIFFERENT", same)


def own(page, programs, name, keys, height, width, statistics, compare_hf=True):
    """A model that this project has trained -> transformers and timm."""
    run = programs.path(f"{name}-run")
    command = [programs.target / "mae-train", "pretrain", "--out", run]
    base = [
        "data.samples=64", "optim.epochs=1", "optim.warmup_epochs=0", "optim.batch_size=16", "run.device=cpu",
        "run.reconstruct_every=0", "optim.base_lr=0.05", "data.normalization=given",
        f"data.mean={statistics[0]}", f"data.std={statistics[1]}",
    ]
    for key in base + keys:
        command += ["--set", key]
    programs.check(command)
    native = programs.convert(run, programs.path(f"{name}.safetensors"))
    given = inputs(height, width, 3, 4)
    ours = programs.forward(native, given)
    if compare_hf:
        way = "ours to transformers"
        folder = programs.convert(run, programs.path(f"{name}-hf"), "--format", "huggingface")
        model = load(page, name, way, "warnings of ViTMAEForPreTraining", lambda: ViTMAEForPreTraining.from_pretrained(folder))
        compare_mae(page, name, way, ours, model, given, statistics)
        encoder = programs.convert(run, programs.path(f"{name}-encoder"), "--format", "huggingface", "--part", "encoder")
        vit = load(page, name, way, "warnings of ViTMAEModel", lambda: ViTMAEModel.from_pretrained(encoder))
        compare_tokens(page, name, way, ours, hf_tokens(vit, given, statistics))
        back = programs.convert(folder, programs.path(f"{name}-back.safetensors"))
        page.equal(name, "and back", "weights", load_file(back), load_file(native))
    way = "ours to timm"
    folder = programs.convert(run, programs.path(f"{name}-timm"), "--format", "timm")
    compare_timm(page, name, way, ours, folder, given, statistics)
    tokens, _ = exported(page, programs, name, run, given["images"])
    for way, found in tokens.items():
        compare_tokens(page, name, way, ours, found)


def compare_timm(page, name, way, ours, folder, given, statistics):
    model = load(page, name, way, "warnings of timm", lambda: timm.create_model(f"local-dir:{folder}", pretrained=True))
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    same = torch.allclose(torch.tensor(model.pretrained_cfg["mean"]), torch.tensor(statistics[0]))
    page.row(name, way, "mean in its configuration", "equal" if same else "DIFFERENT", same)
    with torch.no_grad():
        compare_tokens(page, name, way, ours, model.forward_features(normalized(given["images"], statistics)))


def from_timm(page, programs, name, architecture, keep_config, **arguments):
    """timm -> ours -> timm."""
    model = draw(timm.create_model(architecture, num_classes=7, **arguments), seed=2)
    folder = programs.path(f"{name}-source")
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    patch = model.patch_embed.patch_size[0]
    height, width = model.patch_embed.img_size
    channels = model.patch_embed.proj.in_channels
    statistics = IMAGENET if channels == 3 else ([0.5] * channels, [0.25] * channels)
    more = []
    if keep_config:
        timm.models._hub.save_config_for_hf(
            model, folder / "config.json", model_args=arguments,
            model_config=dict(pretrained_cfg=dict(mean=statistics[0], std=statistics[1])),
        )
    else:
        more = ["--num-heads", str(model.blocks[0].attn.num_heads)]
        more += ["--mean", ",".join(map(str, statistics[0])), "--std", ",".join(map(str, statistics[1]))]
        if height != width:
            more += ["--image-size", f"{height}x{width}"]
    native = programs.convert(folder, programs.path(f"{name}.safetensors"), *more) if keep_config else programs.convert(
        folder / "model.safetensors", programs.path(f"{name}.safetensors"), *more
    )
    given = inputs(height, width, channels, patch)
    ours = programs.forward(native, given)
    way = "timm to ours"
    pixels = normalized(given["images"], statistics)
    with torch.no_grad():
        if isinstance(model.fc_norm, torch.nn.Identity):
            compare_tokens(page, name, way, ours, model.forward_features(pixels))
        else:
            # Their norm comes after pooling; ours is the same layer on each token.
            tokens = model.fc_norm(model.forward_features(pixels))
            compare_tokens(page, name, way, ours, tokens)
            return
    back = programs.convert(native, programs.path(f"{name}-back"), "--format", "timm")
    compare_timm(page, name, "and back", ours, back, given, statistics)
    weights = {key: value for key, value in model.state_dict().items() if not key.startswith("head.")}
    page.equal(name, "and back", "weights", load_file(back / "model.safetensors"), weights)


def authors(page, programs, dtype):
    """A file in the authors' layout, with the weights of a transformers model."""
    name = "authors' .pth" if dtype == torch.float32 else f"authors' .pth, {str(dtype)[6:]}"
    config = ViTMAEConfig(**TINY, layer_norm_eps=1e-6, norm_pix_loss=True)
    model = draw(ViTMAEForPreTraining(config), seed=3).to(dtype).float()
    hf = programs.path("authors-hf")
    model.save_pretrained(hf)
    native = programs.convert(hf, programs.path(f"authors-{dtype}-hf.safetensors"), "--normalization", "imagenet")
    weights = {key: value.to(dtype) for key, value in load_file(native).items()}
    # As a model's state has it: some parameters lie in one storage, some are not contiguous.
    together = torch.cat([weights["norm.weight"], weights["norm.bias"]])
    weights["norm.weight"], weights["norm.bias"] = together[:48], together[48:]
    key = "blocks.0.attn.proj.weight"
    weights[key] = weights[key].t().contiguous().t()
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))])
    optimizer.param_groups[0]["params"][0].sum().backward()
    optimizer.step()
    arguments = argparse.Namespace(
        model="tiny", norm_pix_loss=True, input_size=24, mask_ratio=0.75, lr=1e-3, device="cuda", resume=""
    )
    file = programs.path(f"authors-{dtype}.pth")
    torch.save(
        dict(model=weights, optimizer=optimizer.state_dict(), epoch=3, scaler=dict(scale=65536.0), args=arguments), file
    )
    more = ["--num-heads", "4", "--decoder-num-heads", "2"]
    converted = programs.convert(file, programs.path(f"authors-{dtype}.safetensors"), *more)
    found = load_file(converted)
    page.equal(name, "to ours", "weights", found, {key: value.contiguous() for key, value in weights.items()})
    given = inputs(24, 24, 3, 4)
    compare_mae(page, name, "to ours", programs.forward(converted, given), model, given, IMAGENET)


def channels(page, programs):
    """Channels adapted: a grey image in one channel is the same image in three."""
    name = "ViTMAE tiny, 3 to 1 channels"
    source = programs.path("ViTMAE tiny.safetensors")
    grey = programs.convert(source, programs.path("grey.safetensors"), "--channels", "1", "--adapt", "mean", "--mean", "0.5", "--std", "0.2")
    three = programs.convert(source, programs.path("three.safetensors"), "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2")
    given = inputs(24, 24, 1, 4)
    ours = programs.forward(grey, given)
    again = programs.forward(three, given | dict(images=given["images"].expand(-1, -1, -1, 3).contiguous()))
    for key in ("latent", "class_token"):
        page.close(name, "--adapt mean", f"{key.replace('_', ' ')} of grey images", ours[key], again[key])


def classifiers(page, programs):
    """What an evaluation of ours learned -> transformers and timm: probabilities of a folder of images."""
    name, side, classes = "a classifier of ours", 24, ("ant", "bee, too", "dog")
    photos = programs.path("photos")
    pixels = {}
    generator = torch.Generator().manual_seed(5)
    for number in range(60):
        label = number % 3
        image = torch.randint(0, 200, (side, side, 3), dtype=torch.uint8, generator=generator)
        image[..., label] += 55
        path = photos / classes[label] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(path)
        pixels[str(path)] = image
    programs.run(
        "eval", "--from", programs.path("a run of ours-run"), "--data", photos, "--val", photos, "--out",
        programs.path("eval"), "--protocols", "linear,finetune", "--set", "features.pool=class",
        "--set", "finetune.epochs=8", "--set", "finetune.batch_size=12", "--set", "finetune.warmup_epochs=0",
        "--set", "finetune.base_lr=0.02", "--set", "linear.epochs=20", "--set", "linear.warmup_epochs=0",
        "--set", "linear.batch_size=20", "--set", "run.device=cpu",
    )
    for protocol, format in [("linear", "huggingface"), ("finetune", "huggingface"), ("linear", "timm"), ("finetune", "timm")]:
        folder = programs.path("eval") / f"{protocol}-pre-trained"
        out = programs.path(f"{protocol}-{format}")
        programs.run(
            "predict", photos, "--from", folder, "--out", f"{out}.csv", "--probabilities", f"{out}.npy", "--device", "cpu"
        )
        ours = torch.from_numpy(numpy.load(f"{out}.npy"))
        with open(f"{out}.csv", newline="") as rows:
            images = torch.stack([pixels[row["path"]] for row in csv.DictReader(rows)])
        converted = programs.convert(folder, out, "--format", format)
        way = f"{protocol} to {'transformers' if format == 'huggingface' else 'timm'}"
        if format == "huggingface":
            kind = ViTForImageClassification if protocol == "linear" else BeitForImageClassification
            model = load(page, name, way, f"warnings of {kind.__name__}", lambda: kind.from_pretrained(converted))
            labels = [model.config.id2label[number] for number in range(3)]
            forward = lambda images: model(images).logits
        else:
            model = load(page, name, way, "warnings of timm", lambda: timm.create_model(f"local-dir:{converted}", pretrained=True))
            labels = model.pretrained_cfg["label_names"]
            forward = model
        page.row(name, way, "names of the classes", "equal" if labels == list(classes) else "DIFFERENT", labels == list(classes))
        with torch.no_grad():
            theirs = forward(normalized(images, HALF)).softmax(-1)
        page.close(name, way, "probabilities", ours, theirs)
        if format == "timm":
            logits, named = exported(page, programs, f"{name}, {protocol}", folder, images)
            for way, found in logits.items():
                page.close(f"{name}, {protocol}", way, "probabilities", ours, found.softmax(-1))
            same = all(json.loads(names) == list(classes) for names in named)
            page.row(f"{name}, {protocol}", "both", "names of the classes", "equal" if same else "DIFFERENT", same)


def exported(page, programs, name, source, images):
    """What the exported files of `source` make of images [batch, height, width, channels], by each way."""
    onnx_file, script = programs.path("exported.onnx"), programs.path("exported.pt")
    programs.run("export", "--from", source, "--onnx", onnx_file, "--torchscript", script, "--overwrite")
    images = images.permute(0, 3, 1, 2).float() / 255
    with listening() as said:
        onnx.checker.check_model(onnx_file, full_check=True)
        session = onnxruntime.InferenceSession(onnx_file)
    page.silent(name, "ours to ONNX Runtime", "warnings of it and of the checker", said)
    by_runtime, = session.run(None, {"images": images.numpy()})
    module = torch.jit.load(script)
    with torch.no_grad():
        by_torch = module(images)
    classes = session.get_modelmeta().custom_metadata_map.get("classes"), getattr(module, "classes", None)
    return {"ours to ONNX Runtime": torch.from_numpy(by_runtime), "ours to TorchScript": by_torch}, classes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", type=Path, default=Path("target/release"))
    target = parser.parse_args().target.resolve()
    torch.set_num_threads(1)
    page = Page()
    with tempfile.TemporaryDirectory() as folder:
        programs = Programs(target, Path(folder))
        huggingface(page, programs, "ViTMAE tiny", TINY, HALF)
        huggingface(page, programs, "ViTMAE tiny, norm-pix", TINY | dict(norm_pix_loss=True, layer_norm_eps=1e-6), HALF)
        huggingface(page, programs, "ViTMAE base", BASE, IMAGENET)
        small = [
            "model.patch_size=4", "model.embed_dim=48", "model.depth=3", "model.num_heads=4",
            "model.decoder_embed_dim=32", "model.decoder_depth=2", "model.decoder_num_heads=2",
        ]
        own(page, programs, "a run of ours", [*small, "model.image_size=24"], 24, 24, HALF)
        classifiers(page, programs)
        rectangle = [*small, "model.image_height=16", "model.image_width=36", "model.norm_pix_loss=false"]
        own(page, programs, "a run of ours, 16 x 36", rectangle, 16, 36, HALF, compare_hf=False)
        from_timm(page, programs, "vit_tiny_patch16_224", "vit_tiny_patch16_224", True)
        unusual = dict(img_size=(16, 36), patch_size=4, embed_dim=48, depth=3, num_heads=4, mlp_ratio=2, in_chans=5)
        from_timm(page, programs, "vit 48 x 3, 5 channels, without config.json", "vit_base_patch16_224", False, **unusual)
        pooled = dict(img_size=24, patch_size=4, embed_dim=48, depth=3, num_heads=4, global_pool="avg")
        from_timm(page, programs, "vit 48 x 3, pooled by the mean (fc_norm)", "vit_base_patch16_224", True, **pooled)
        authors(page, programs, torch.float32)
        authors(page, programs, torch.float16)
        authors(page, programs, torch.bfloat16)
        channels(page, programs)
    write(page)
    sys.exit(page.failed)


def write(page):
    print("# Converted and exported weights, compared with the programs they come from and go to\n")
    print("Random models go through `mae-train convert`, and both programs compute the same images.")
    print(f"The difference is the norm of the difference over the norm; the limit is {LIMIT:.0e}.")
    print('"Equal" are the same bits; warnings are whatever a client logs, warns of or prints while it loads.\n')
    print("```sh")
    print("cargo build --release -p mae-train -p mae-model --bins --examples")
    print("venv/bin/python crates/mae-train/tests/parity.py > docs/results/parity.md")
    print("```\n")
    versions = [
        f"Python {platform.python_version()}",
        f"torch {torch.__version__.split('+')[0]}",
        f"transformers {transformers.__version__}",
        f"timm {timm.__version__}",
        f"safetensors {safetensors.__version__}",
        f"onnx {onnx.__version__}",
        f"onnxruntime {onnxruntime.__version__}",
    ]
    print(f"{', '.join(versions)}, in f32 on one CPU thread.\n")
    print("| model | way | what | difference |")
    print("|---|---|---|---|")
    last = ("", "")
    for model, way, what, value in page.rows:
        shown = ("\"" if model == last[0] else model, "\"" if (model, way) == last else way)
        last = (model, way)
        print(f"| {shown[0]} | {shown[1]} | {what} | {value} |")


if __name__ == "__main__":
    main()
