"""The Batch tab: one `p` runs over all files of a folder, or over uploads."""

import os
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

import modules.scripts
from modules import processing, shared


def process_batch(
    p,
    input,
    output_dir,
    inpaint_mask_dir,
    args,
    to_scale=False,
    scale_by=1.0,
    use_png_info=False,
    png_info_props=None,
    png_info_dir=None,
):
    if isinstance(input, str):
        batch_images = list(
            shared.walk_files(input, allowed_extensions=(".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"))
        )
    else:
        batch_images = [os.path.abspath(x.name) for x in input]
    results = None
    for i, image in enumerate(batch_images):
        shared.state.job = f"{i + 1} out of {len(batch_images)}"
        try:
            img = Image.open(image)
        except UnidentifiedImageError:
            continue
        p.init_images = [ImageOps.exif_transpose(img)] * p.batch_size
        if inpaint_mask_dir:
            masks = list(Path(inpaint_mask_dir).glob(f"{Path(image).stem}.*"))
            if not masks:
                continue
            p.image_mask = Image.open(masks[0])
        proc = modules.scripts.scripts_img2img.run(p, *args)
        if proc is None:
            proc = processing.process_images(p)
        if results:
            results.images.extend(proc.images)
        else:
            results = proc
    return results
