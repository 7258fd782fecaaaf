"""Prompt templates that put a class name into a sentence, and ImageNet's class names; both as open_clip has them."""

from __future__ import annotations

from collections.abc import Callable

from bob.errors import UserError, did_you_mean

Template = str | Callable[[str], str]

# The prompt that the CLIP paper (arXiv 2103.00020, section 3.1.4) calls a good default.
DEFAULT_TEMPLATES: tuple[Template, ...] = ("a photo of a {}.",)
# Name -> constant of open_clip, which has them from OpenAI's notebook on prompt engineering for ImageNet.
_FROM_OPEN_CLIP = {"openai_imagenet": "OPENAI_IMAGENET_TEMPLATES", "simple_imagenet": "SIMPLE_IMAGENET_TEMPLATES"}


def templates(name: str = "default") -> tuple[Template, ...]:
    """Return the templates of one name.

    Args:
        name: `default` for one, `simple_imagenet` for OpenAI's seven, `openai_imagenet` for its eighty.

    Raises:
        UserError: If there are none of that name.
    """
    if name == "default":
        return DEFAULT_TEMPLATES
    if name not in _FROM_OPEN_CLIP:
        known = ["default", *_FROM_OPEN_CLIP]
        raise UserError(f"There are no prompt templates '{name}'.", did_you_mean(name, known) or f"Use one of {known}.")
    import open_clip

    return tuple(getattr(open_clip, _FROM_OPEN_CLIP[name]))


def imagenet_class_names() -> tuple[str, ...]:
    """Return the 1,000 names, in the order of ImageNet-1k's classes, that OpenAI curated for CLIP."""
    import open_clip

    return tuple(open_clip.IMAGENET_CLASSNAMES)


def fill(template: Template, class_name: str) -> str:
    """Put a class name into a template: a function, or a text with `{}` where the name goes.

    Raises:
        UserError: If the text has no such place.
    """
    if not isinstance(template, str):
        return template(class_name)
    try:
        filled = template.format(class_name)
    except (IndexError, KeyError, ValueError):
        filled = template
    if filled == template:
        raise UserError(
            f"The prompt template '{template}' has no place for the class name.", "Put {} where the name goes."
        )
    return filled
