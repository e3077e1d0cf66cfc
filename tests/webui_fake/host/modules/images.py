"""Prepare a picture for the sampler as the host does."""

import numpy as np
from PIL import Image, ImageOps


def fix_image(image):
    return None if image is None else ImageOps.exif_transpose(image)


def flatten(img, bgcolor):
    if img.mode == "RGBA":
        below = Image.new("RGBA", img.size, bgcolor)
        img = Image.alpha_composite(below, img)
    return img.convert("RGB")


def resize_image(resize_mode, im, width, height, upscaler_name=None):
    """0: stretch. 1: cover, cut around the centre. 2: contain, edges repeated around it."""
    if resize_mode == 0:
        return im.resize((width, height), Image.Resampling.LANCZOS)
    pick = max if resize_mode == 1 else min
    scale = pick(width / im.width, height / im.height)
    part = im.resize((round(im.width * scale), round(im.height * scale)), Image.Resampling.LANCZOS)
    left, top = (width - part.width) // 2, (height - part.height) // 2
    if resize_mode == 1:
        return part.crop((-left, -top, width - left, height - top))
    around = [(top, height - part.height - top), (left, width - part.width - left)]
    pixels = np.asarray(part)
    return Image.fromarray(np.pad(pixels, around + [(0, 0)] * (pixels.ndim - 2), mode="edge"))


class FakeGrid:
    def __init__(self, tiles):
        self.tiles = tiles


def split_grid(image, tile_w=512, tile_h=512, overlap=64):
    """Rows of tiles that overlap: [top, height, [[left, width, picture], ...]]."""
    rows = []
    for top in range(0, image.height - overlap, tile_h - overlap):
        top = min(top, image.height - tile_h)
        row = []
        for left in range(0, image.width - overlap, tile_w - overlap):
            left = min(left, image.width - tile_w)
            row.append([left, tile_w, image.crop((left, top, left + tile_w, top + tile_h))])
        rows.append([top, tile_h, row])
    return FakeGrid(rows)
