"""PIL and torchvision's transforms in a DataLoader with worker processes, as most training scripts have it."""

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import common


class Photos(Dataset):
    """Crops of photographs as u8 tensors `[3, size, size]`, without end and in random order."""

    def __init__(self, files, size):
        self.files = files
        self.transform = transforms.Compose([
            transforms.RandomResizedCrop(
                size, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3), interpolation=transforms.InterpolationMode.BICUBIC
            ),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
        ])

    def __len__(self):
        # One epoch outlasts any measurement: its beginning and end are not what is measured.
        return len(self.files) * 100_000

    def __getitem__(self, index):
        # Spread over the files by a prime, because a random order of so many would itself take memory.
        with Image.open(self.files[index * 7_368_787 % len(self.files)]) as image:
            return self.transform(image.convert("RGB"))


def main():
    arguments = common.loader_arguments(__doc__).parse_args()
    files = common.photos(arguments.folder)
    common.warm_page_cache(files)
    torch.set_num_threads(1)
    loader = iter(DataLoader(Photos(files, arguments.size), arguments.batch, num_workers=arguments.workers))
    # Every worker has two batches in flight when the measurement begins.
    measured = common.measure(lambda: next(loader), arguments.batch, arguments.seconds, 3 * arguments.workers + 2)
    measured |= {"peak_rss_mb": common.peak_rss_mb(), "pss_mb": common.pss_mb()}
    common.report(measured, ["torch", "torchvision", "pillow"])


if __name__ == "__main__":
    main()
