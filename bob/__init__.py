"""bob compares pretrained vision backbones across tasks under one protocol each (Battle of the Backbones)."""

__version__ = "0.1.0"
