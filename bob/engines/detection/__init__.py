"""Cascade Mask R-CNN on torchvision's parts: the detection engine that needs no other library."""

from bob.engines.detection.engine import train, version

__all__ = ["train", "version"]
