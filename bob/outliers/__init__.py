"""How unlike the known classes an image is, told by its stored feature."""
