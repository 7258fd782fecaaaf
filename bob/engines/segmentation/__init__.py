"""UPerNet on any backbone, its decoder from segmentation-models-pytorch, trained by bob's own loop."""

from bob.engines.segmentation.engine import train, version

__all__ = ["train", "version"]
