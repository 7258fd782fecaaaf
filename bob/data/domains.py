"""A folder of domains, each with the same class folders, such as PACS and DomainNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bob.data.base import ImageSet
from bob.data.files import FileImages
from bob.data.folder import load_folder
from bob.errors import UserError


def load_domains(path: Path) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read `PATH/DOMAIN/CLASS/image`: each domain is a split, which a card can join by `+` or keep for testing.

    An image's group is its domain, for the accuracy of the worst one.

    Returns:
        Class names, and the image set of each domain.

    Raises:
        UserError: If the folder is missing, has fewer than two domains, or these have different classes.
    """
    path = path.expanduser().absolute()
    if not path.is_dir():
        raise UserError(f"There is no folder {path}.", "Give a folder of domains, each a folder of class folders.")
    domains = sorted(child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    if len(domains) < 2:
        raise UserError(f"{path} has {len(domains)} folders, where each domain needs one.", "Add the others.")
    pools: dict[str, ImageSet] = {}
    classes: tuple[str, ...] = ()
    for number, domain in enumerate(domains):
        own, opened = load_folder(path / domain)
        if "all" not in opened or (classes and own != classes):
            raise UserError(f"{path / domain} has other class folders than {path / domains[0]}.", "Correct them.")
        classes = own
        images = opened["all"]
        groups = np.full(len(images), number)
        names = [f"{domain}/{name}" for name in images.names]
        pools[domain] = FileImages(path, names, images.labels, groups, domains)
    return classes, pools
