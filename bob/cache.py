"""The `bob cache` commands: the stored features on this machine, and the space that they take."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from bob.console import print_lines, print_table
from bob.errors import UserError

app = typer.Typer(rich_markup_mode=None, help="Show and free the space that features take.")


@app.command("ls")
def ls() -> None:
    """List the stored features, largest first."""
    from bob.features.store import default_root, list_stores

    stores = list_stores()
    rows = [[s.path.name, s.model, f"{s.rows} x {s.width}", f"{s.size / 2**20:.1f} MiB"] for s in stores]
    print_table(["key", "backbone", "features", "size"], rows)
    print_lines([f"{sum(s.size for s in stores) / 2**20:.1f} MiB in {default_root()}"])


@app.command("rm")
def rm(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys, as `bob cache ls` shows them.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Remove every stored feature.")] = False,
) -> None:
    """Remove stored features; they are computed again when needed."""
    from bob.features.store import list_stores

    stores = {store.path.name: store for store in list_stores()}
    unknown = [key for key in keys or [] if key not in stores]
    if unknown or not (keys or all_):
        problem = f"No stored features have the key '{unknown[0]}'." if unknown else "Nothing to remove was named."
        raise UserError(problem, "Give keys as `bob cache ls` shows them, or --all.")
    chosen = list(stores) if all_ else list(dict.fromkeys(keys or []))
    for key in chosen:
        shutil.rmtree(stores[key].path)
    print_lines([f"Removed {len(chosen)} stores, {sum(stores[key].size for key in chosen) / 2**20:.1f} MiB."])
