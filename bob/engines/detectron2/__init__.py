"""Cascade Mask R-CNN in detectron2: its classes, its trainer and its data loader, with any backbone of bob's."""

from bob.engines.detectron2.engine import train
from bob.engines.detectron2.library import version

__all__ = ["train", "version"]
