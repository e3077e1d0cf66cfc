"""Run by the WebUI at every start, with its own folder on PYTHONPATH: adds the packages that are missing.

Nothing that is there is moved: each package is installed without its dependencies, and only if it cannot be imported.
WebUI 1.6.0 to 1.10.1 bring all of them already; other hosts and trimmed environments may not. `launch.run_pip` does
nothing under `--skip-install`.
"""

from __future__ import annotations

import importlib.util
import os
import sys

# Module -> what pip is asked for. OpenCV 4.12 and later want numpy 2, which the WebUI does not have.
PACKAGES = {
    "cv2": "opencv-python-headless>=4.8,<4.12",
    "OpenEXR": "OpenEXR>=3.5,<4",
    "omegaconf": "omegaconf>=2.2,<3",
    "safetensors": "safetensors>=0.4",
    "tifffile": "tifffile>=2023.2",
    "timm": "timm>=1.0,<2",
}


def main() -> int:
    """Install what is missing; 0 if all is well, 1 if something could not be installed or cannot be done from here."""
    try:
        import launch
    except ModuleNotFoundError as problem:
        if problem.name != "launch":
            raise
        return _for_comfyui() if "COMFYUI_PATH" in os.environ else _by_hand()
    failed = 0
    for module, requirement in PACKAGES.items():
        if launch.is_installed(module):
            continue
        try:
            launch.run_pip(f'install --no-deps "{requirement}"', f"{module} for Depth to image")
        except RuntimeError as problem:
            failed = 1
            print(f"Depth to image: {problem}\nInstall it by hand: {_command([requirement])}")
    return failed


def _for_comfyui() -> int:
    """Do nothing: ComfyUI-Manager runs this file, too, and has installed `requirements.txt` before."""
    print("Depth to image: ComfyUI needs requirements.txt, and nothing of this file.")
    return 0


def _by_hand() -> int:
    missing = [requirement for module, requirement in PACKAGES.items() if importlib.util.find_spec(module) is None]
    print("Depth to image: the WebUI runs this file at every start; it need not be run by hand.")
    if not missing:
        print("Nothing is missing in this Python.")
        return 0
    print(f"Missing in this Python: {', '.join(missing)}. To add them here: {_command(missing)}")
    return 1


def _command(requirements: list[str]) -> str:
    return f'"{sys.executable}" -m pip install --no-deps ' + " ".join(f'"{name}"' for name in requirements)


if __name__ == "__main__":
    sys.exit(main())
