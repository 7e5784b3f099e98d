"""torchvision's decode_jpeg and v2 transforms on u8 tensors, in worker processes or in threads.

Without --backend both are tried for a moment and the faster one is measured.
"""

import collections
import itertools
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import InterpolationMode, v2

import common


class Photos(Dataset):
    """Crops of photographs as u8 tensors `[3, size, size]`, without end and in random order."""

    def __init__(self, files, size):
        self.files = files
        self.transform = v2.Compose([
            v2.RandomResizedCrop(
                size, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3), interpolation=InterpolationMode.BICUBIC, antialias=True
            ),
            v2.RandomHorizontalFlip(),
        ])

    def __len__(self):
        # One epoch outlasts any measurement: its beginning and end are not what is measured.
        return len(self.files) * 100_000

    def __getitem__(self, index):
        # Spread over the files by a prime, because a random order of so many would itself take memory.
        file = read_file(self.files[index * 7_368_787 % len(self.files)])
        return self.transform(decode_jpeg(file, ImageReadMode.RGB))


def in_processes(photos, arguments):
    return iter(DataLoader(photos, arguments.batch, num_workers=arguments.workers))


def in_threads(photos, arguments):
    """Batches whose images are made by threads, with two batches in flight for each."""
    batches = itertools.count(step=arguments.batch)

    def make(first):
        return torch.stack([photos[index] for index in range(first, first + arguments.batch)])

    with ThreadPoolExecutor(arguments.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        flying = collections.deque(pool.submit(make, next(batches)) for _ in range(2 * arguments.workers))
        try:
            while True:
                batch = flying.popleft().result()
                flying.append(pool.submit(make, next(batches)))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)


BACKENDS = {"processes": in_processes, "threads": in_threads}


def main():
    parser = common.loader_arguments(__doc__)
    parser.add_argument("--backend", choices=BACKENDS)
    arguments = parser.parse_args()
    files = common.photos(arguments.folder)
    common.warm_page_cache(files)
    torch.set_num_threads(1)
    photos = Photos(files, arguments.size)
    # Every worker has two batches in flight when the measurement begins.
    warm_up = 3 * arguments.workers + 2

    def run(backend, seconds):
        loader = BACKENDS[backend](photos, arguments)
        measured = common.measure(lambda: next(loader), arguments.batch, seconds, warm_up)
        measured |= {"peak_rss_mb": common.peak_rss_mb(), "pss_mb": common.pss_mb(), "repeat_with": ["--backend", backend]}
        del loader
        return measured

    backend = arguments.backend or max(BACKENDS, key=lambda backend: run(backend, 2.0)["images_per_s"])
    common.report(run(backend, arguments.seconds), ["torch", "torchvision"])


if __name__ == "__main__":
    main()
