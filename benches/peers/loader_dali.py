"""NVIDIA DALI's pipeline on the CPU, in threads."""

from nvidia.dali import fn, pipeline_def, types

import common


@pipeline_def
def crops(files, size):
    encoded, _ = fn.readers.file(files=files, random_shuffle=True, initial_fill=len(files))
    images = fn.decoders.image_random_crop(
        encoded, device="cpu", output_type=types.RGB, random_area=(0.2, 1.0), random_aspect_ratio=(3 / 4, 4 / 3)
    )
    # Fused, which is a little faster than resizing and mirroring one after the other.
    return fn.resize_crop_mirror(
        images,
        size=(size, size),
        crop=(size, size),
        mirror=fn.random.coin_flip(),
        interp_type=types.INTERP_CUBIC,
        antialias=True,
    )


def main():
    arguments = common.loader_arguments(__doc__).parse_args()
    files = common.photos(arguments.folder)
    common.warm_page_cache(files)
    pipeline = crops(
        files,
        arguments.size,
        batch_size=arguments.batch,
        num_threads=arguments.workers,
        device_id=None,
        prefetch_queue_depth=2,
        seed=0,
    )
    pipeline.build()
    measured = common.measure(pipeline.run, arguments.batch, arguments.seconds)
    measured |= {"peak_rss_mb": common.peak_rss_mb(), "pss_mb": common.pss_mb()}
    common.report(measured, [common.dali_package()])


if __name__ == "__main__":
    main()
