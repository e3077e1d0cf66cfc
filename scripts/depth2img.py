"""Entry of the extension; everything is in the packages `depth2img` and `depth2img_webui` beside this folder.

The host puts the extension's folder on `sys.path` only while this file runs, so all that is needed is imported here.
"""

from depth2img_webui.script import DepthToImage, register

__all__ = ["DepthToImage"]

register()
