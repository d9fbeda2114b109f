"""Makes the smallest set of files that embeds as a bundle does: a package, in a folder or one file.

It needs the packages of ``fmrt[quantize]``, and no torch.
"""

from fmrt.export.package.bundle import package_bundle

__all__ = ["package_bundle"]
