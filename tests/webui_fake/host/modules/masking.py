"""Process masks as the host does, as far as the preview uses it."""

from PIL import Image


def get_crop_region(mask, pad=0):
    mask = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    box = mask.getbbox() or (*mask.size, 0, 0)
    left, top, right, bottom = box
    return max(left - pad, 0), max(top - pad, 0), min(right + pad, mask.width), min(bottom + pad, mask.height)


def expand_crop_region(crop_region, processing_width, processing_height, image_width, image_height):
    return crop_region


def fill(image, mask):
    return image
