"""What the peers' measurements share: their arguments, their clock, their memory, their one line of JSON."""

import argparse
import json
import os
import pathlib
import time
from importlib import metadata

# PyTorch's names of what products are computed in.
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def loader_arguments(description):
    """The arguments of a loader's measurement."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=pathlib.Path, help="JPEG files, nested as you like")
    parser.add_argument("--size", type=int, default=224, help="side of the crop in pixels")
    parser.add_argument("--batch", type=int, default=64, help="images in a batch")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="worker processes or threads")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long to measure")
    return parser


def photos(folder):
    """Every JPEG file under `folder`, in order."""
    files = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise SystemExit(f"{folder}: no jpg files; name a folder of photographs")
    return files


def warm_page_cache(files):
    """Reads every file once, so that no measurement waits for the disk."""
    for file in files:
        with open(file, "rb") as opened:
            opened.read()


def measure(next_batch, batch_size, seconds, warm_up=6):
    """Takes batches for `seconds` after `warm_up` of them; returns images per second, batches and seconds."""
    for _ in range(warm_up):
        next_batch()
    batches, start = 0, time.perf_counter()
    while True:
        next_batch()
        batches += 1
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return {"images_per_s": batches * batch_size / elapsed, "batches": batches, "seconds": elapsed}


def peak_rss_mb():
    """Peak resident memory in MB: VmHWM of this process and of each of its descendants, added.

    Ask while the workers are alive. Pages that processes share count once for each of them.
    None where the system is not Linux.
    """
    return sum(status_kb(process, "VmHWM") for process in family()) * 1024 / 1e6 or None


def pss_mb():
    """Memory now in MB, of this process and its descendants; a shared page counts once."""
    total = 0
    for process in family():
        try:
            lines = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024 / 1e6 or None


def family():
    """This process and all its descendants, by number."""
    parents = {}
    for entry in pathlib.Path("/proc").glob("*"):
        if entry.name.isdigit():
            try:
                # The name in parentheses may hold anything, spaces and parentheses too.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [os.getpid()]
    for process in found:
        found.extend(child for child, parent in parents.items() if parent == process)
    return found


def status_kb(process, key):
    try:
        lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def dali_package():
    """The name under which DALI is installed: one for each version of CUDA."""
    return next(name for name in metadata.packages_distributions()["nvidia"] if "dali" in name)


def report(measured, packages):
    """Prints the one line that `cargo xtask bench` reads.

    `repeat_with`, if there, is what was found best: arguments that the next rounds' runs are given.
    """
    versions = {package: metadata.version(package) for package in packages}
    print(json.dumps({**measured, "versions": versions}), flush=True)
