"""numpy's .npy and .npz files, and torch tensors."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Sequence
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import DepthMapError
from ...io import images
from .raw import Raw, choose, from_array, listed, squeezed

NPY_MAGIC: Final = b"\x93NUMPY"
ZIP_MAGIC: Final = b"PK\x03\x04"
ZIP_ENTRY: Final = b"PK\x01\x02"
"""Signature of an entry in a zip file's central directory."""

MOST_ENTRIES: Final = 1000
MOST_BYTES: Final = 2 * images.MAX_BYTES
"""Unpacked size of one array of an .npz: the largest map in float64."""

NOT_ONE: Final = "Save a two-dimensional array of numbers."
DEPTH_WORDS: Final = ("depth", "disp", "dist")
"""Parts of the names of arrays that hold depth, where others lie beside them."""


def is_npy(content: bytes) -> bool:
    """Tell whether the content begins as an .npy file does."""
    return content[:6] == NPY_MAGIC


def is_npz(content: bytes) -> bool:
    """Tell whether the content begins as a zip file does."""
    return content[:4] == ZIP_MAGIC


def read_npy(content: bytes, channel: str) -> Raw:
    """Read an .npy file; nothing is allocated before its header has been checked, and no object is unpickled.

    Raises:
        DepthMapError: it is damaged, or holds no map.
    """
    with images.decoding("The .npy file holds no depth map.", fix=NOT_ONE, error=DepthMapError):
        array = _unpacked(io.BytesIO(content))
    return from_array(array, "NPY", None, channel)


def read_npz(content: bytes, channel: str) -> Raw:
    """Read the one array of an .npz file that can be a map, or the one that the user named.

    Raises:
        DepthMapError: it is damaged, no array can be a map, or several can; the message names them.
    """
    if content.count(ZIP_ENTRY) > MOST_ENTRIES:
        raise DepthMapError("The .npz file holds too many arrays.", got=f"more than {MOST_ENTRIES}", fix=NOT_ONE)
    with (
        images.decoding("The .npz file holds no depth map.", fix=NOT_ONE, error=DepthMapError),
        zipfile.ZipFile(io.BytesIO(content)) as archive,
    ):
        shapes = _shapes(archive)
        chosen = choose(channel, list(shapes), "NPZ") or _only(shapes)
        with archive.open(f"{chosen}.npy") as member:
            array = _unpacked(member)
    return from_array(array, f"NPZ, {chosen[:40]}", None)


def read_tensor(tensor: Any, channel: str) -> Raw:
    """Read a torch tensor, wherever it lies; bfloat16 becomes float32.

    Raises:
        DepthMapError: it is sparse, quantised or of a kind that has no numbers.
    """
    torch = sys.modules["torch"]
    with images.decoding("The tensor holds no depth map.", fix="Give a dense one of numbers.", error=DepthMapError):
        there = tensor.detach().cpu()
        array = (there.float() if there.dtype == torch.bfloat16 else there).resolve_conj().resolve_neg().numpy()
    return from_array(array, "tensor", None, channel)


def is_tensor(source: object) -> bool:
    """Tell whether it is a torch tensor; torch is not imported for that."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _only(shapes: dict[str, str]) -> str:
    """Return the one array that can be a map, or the one of several whose name speaks of depth."""
    if not shapes:
        raise DepthMapError("The .npz file holds no depth map.", got="no two-dimensional array of numbers", fix=NOT_ONE)
    named = [name for name in shapes if any(word in name.casefold() for word in DEPTH_WORDS)]
    candidates = [*shapes] if len(shapes) == 1 else named
    if len(candidates) != 1:
        raise DepthMapError(
            "The .npz file holds several arrays that could be the depth map.",
            got=listed([f"{name} {shape}" for name, shape in shapes.items()]),
            fix="Name one as 'Map channel' (--map-channel), or save it alone.",
        )
    return candidates[0]


def _shapes(archive: zipfile.ZipFile) -> dict[str, str]:
    """Name -> shape of the arrays that can be maps; others (intrinsics, pickled objects) are passed over."""
    found: dict[str, str] = {}
    for name in archive.namelist():
        if name.endswith(".npy"):
            with archive.open(name) as member:
                try:
                    shape, _, _ = _header(member)
                except (ValueError, DepthMapError):
                    continue
                found[name[:-4]] = " x ".join(map(str, shape))
    return found


def _unpacked(file: IO[bytes]) -> npt.NDArray[Any]:
    """Read the array of an .npy file, no more bytes than its checked header announces."""
    shape, fortran, dtype = _header(file)
    count = int(np.prod(shape, dtype=np.int64))
    if count * dtype.itemsize > MOST_BYTES:
        raise ValueError(f"{count * dtype.itemsize:,} bytes")
    values = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return values.reshape(shape, order="F" if fortran else "C")


def _header(file: IO[bytes]) -> tuple[Sequence[int], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type; the file is left where the numbers begin.

    Raises:
        ValueError: another shape or type than a map's.
        DepthMapError: too large.
    """
    npy: Any = np.lib.format  # numpy 1.26 does not type it
    version = npy.read_magic(file)
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = reader(file)
    left = squeezed(shape)
    if dtype.kind not in "biuf" or not (len(left) == 2 or (len(left) == 3 and 1 <= left[2] <= 4)):
        raise ValueError(f"shape {shape}, type {dtype}")
    images.check_size(left[1], left[0], DepthMapError)
    return shape, fortran, dtype
