"""UPerNet on any backbone by mmsegmentation: its heads, losses, pipelines and runner."""

from bob.engines.mmseg.engine import train, version

__all__ = ["train", "version"]
