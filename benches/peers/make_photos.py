"""Makes a folder of JPEG files that cost a loader what ImageNet's photographs do.

500 x 375 or 375 x 500 pixels, quality 94, 4:2:0, about 65 kB each: gradients, shapes with shadows, and noise
of many octaves as sky, foliage and grain have it. The same arguments give the same pixels.
"""

import argparse
import os
import pathlib

import numpy
from PIL import Image, ImageDraw, ImageFilter


def octaves(rng, height, width, persistence):
    """Noise `[height, width]` of mean 0 whose octaves, from coarse to fine, lose strength by `persistence`."""
    total, strength = numpy.zeros((height, width), numpy.float32), 1.0
    for exponent in range(1, 9):
        cells = 2**exponent
        grid = Image.fromarray(rng.standard_normal((cells, cells)).astype(numpy.float32))
        total += strength * numpy.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
        strength *= persistence
    return total / total.std()


def photo(rng):
    width, height = (500, 375) if rng.random() < 0.7 else (375, 500)
    top, bottom = rng.uniform(30, 225, (2, 1, 1, 3))
    slope = numpy.linspace(0, 1, height)[:, None, None]
    picture = numpy.broadcast_to(top + (bottom - top) * slope, (height, width, 3))
    canvas = Image.fromarray(picture.astype(numpy.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(6, 18)):
        x, y, size = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(15, 160)
        corners = rng.integers(3, 9)
        angles = numpy.sort(rng.uniform(0, 2 * numpy.pi, corners))
        outline = [(x + size * numpy.cos(angle), y + size * numpy.sin(angle)) for angle in angles]
        colour = tuple(int(value) for value in rng.uniform(0, 255, 3))
        if rng.random() < 0.5:
            draw.polygon(outline, fill=colour)
        else:
            draw.ellipse((x - size, y - size / 2, x + size, y + size / 2), fill=colour)
    picture = numpy.asarray(canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.0))), numpy.float32)
    # Texture where a slow noise says so, as a photograph has sharp places and smooth ones.
    texture = octaves(rng, height, width, 0.85) * rng.uniform(14, 26)
    where = numpy.clip(octaves(rng, height, width, 0.3) * 0.5 + 0.6, 0.05, 1.2)
    tint = rng.uniform(0.7, 1.3, 3)
    grain = rng.standard_normal((height, width, 1)).astype(numpy.float32) * rng.uniform(2, 5)
    picture = picture + (texture * where)[..., None] * tint + grain
    return Image.fromarray(picture.clip(0, 255).astype(numpy.uint8))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=1000)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.count):
        path = arguments.out / f"{number:06d}.jpg"
        # Renamed when complete, so that a folder that was interrupted has no half of a file.
        partial = path.with_suffix(".partial")
        photo(numpy.random.default_rng(number)).save(partial, "JPEG", quality=94, subsampling="4:2:0")
        os.replace(partial, path)


if __name__ == "__main__":
    main()
