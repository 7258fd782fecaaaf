"""Pretrained feature extractors behind one interface, whatever library or file their weights come from.

base.py, preprocess.py: the interface, and what an image goes through before it.
sources.py, blueprint.py: from a name to a card to a backbone, and its shape without its weights.
timm*.py, open_clip*.py, torchvision.py, transformers*.py, diffusers.py: one source each; text_tower.py is what those of
open_clip and transformers add for text; hub.py and image_processor.py serve those of Hugging Face.
checkpoint.py: publishers' files; keys.py renames their tensors, download.py brings them here.
custom.py, user_code.py: a user's own code.
hooks.py: layers of modules that have no method for it; blocks.py finds them, readings.py turns them into maps.
descriptor.py: the head of a copy detector. baselines.py: pixels and a constant.
"""
