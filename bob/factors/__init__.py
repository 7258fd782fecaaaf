"""ImageNet-X: which factors make an image of ImageNet unlike its class, and what a classifier makes of them."""
