"""One interface to pretrained backbones, one file for each source of weights."""
