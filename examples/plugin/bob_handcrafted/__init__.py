"""Features from before deep learning, as backbones for bob."""
