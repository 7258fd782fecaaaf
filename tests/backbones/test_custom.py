"""A user's own backbone: five lines in a file, wherever it lies and however it fails."""

import os
import subprocess
import sys
import textwrap
import types

import pytest
import torch

from bob.backbones.base import Backbone
from bob.backbones.preprocess import Preprocess
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.backbones.user_code import source_sha256

FIVE_LINES = """\
    from torch import nn


    def make():
        return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    """
FAILING = """\
    import torch
    from torch import nn

    {top}

    class Net(nn.Module):
        def forward(self, images):
            return {forward}

    def make({arguments}):
        {make}
    """


def open_spec(spec):
    return open_backbone(resolve_backbone(str(spec), {}))


def failing(top="", forward="images.mean((2, 3))", arguments="", make="return Net()"):
    return textwrap.dedent(FAILING).format(top=top, forward=forward, arguments=arguments, make=make)


def test_five_lines_from_another_folder(write, tmp_path_factory, monkeypatch):
    path = write("my_model.py", FIVE_LINES)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    backbone = open_spec(f"{path}:make")
    assert backbone.width() == 12
    assert backbone.card.name == f"{path}:make"
    assert backbone.preprocess == Preprocess()


def test_paths_relative_and_from_home(write, tmp_path, monkeypatch):
    write("my_model.py", FIVE_LINES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    shas = {
        open_spec(f"{path}:make").code["source_sha256"] for path in ("my_model.py", "./my_model.py", "~/my_model.py")
    }
    assert len(shas) == 1


def test_module_in_the_current_folder(write, tmp_path, monkeypatch):
    write("nets_of_mine/__init__.py", "")
    write("nets_of_mine/small.py", FIVE_LINES)
    monkeypatch.chdir(tmp_path)
    assert open_spec("nets_of_mine.small:make").width() == 12


def test_class_is_a_callable_too(write):
    path = write("net.py", failing())
    assert open_spec(f"{path}:Net").width() == 3


def test_random_weights_are_the_same_each_time(write):
    path = write("net.py", failing(make="return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))"))
    assert open_spec(f"{path}:make").identity() == open_spec(f"{path}:make").identity()


# What is wrong, and its one line.


def test_missing_file(tmp_path, refused):
    with refused("There is no file", tmp_path / "no.py"):
        open_spec(f"{tmp_path / 'no.py'}:make")


def test_file_without_function(write, refused):
    path = write("net.py", FIVE_LINES)
    with refused(f"`{path}:make`"):
        open_spec(path)


def test_missing_function(write, refused):
    path = write("net.py", FIVE_LINES)
    with refused(path, "no function 'mkae'", "Did you mean: make?"):
        open_spec(f"{path}:mkae")
    with refused(path, "no function 'zzz'", "Define it."):
        open_spec(f"{path}:zzz")


def test_missing_module(refused):
    with refused("no module 'no_such_package'", "`my_model.py:make`"):
        open_spec("no_such_package.nets:make")
    with refused("no module 'json.nets'"):
        open_spec("json.nets:make")


@pytest.mark.parametrize(
    ("parts", "line", "text"),
    [
        ({"top": "1 / 0"}, 4, "ZeroDivisionError: division by zero"),
        ({"top": "import no_such_module"}, 4, "ModuleNotFoundError: No module named 'no_such_module'"),
        ({"top": "x ="}, 4, "SyntaxError: invalid syntax"),
        ({"top": "raise SystemExit(0)"}, 4, "SystemExit: 0"),
        ({"make": "raise ValueError('one\\n\\ntwo.')"}, 11, "ValueError: one two."),
        ({"make": "import timm; return timm.create_model('nope')"}, 11, "Unknown model (nope)"),
        ({"make": "torch.load('no.pth')"}, 11, "FileNotFoundError"),
        ({"forward": "images.view(7, 7)"}, 8, "RuntimeError: shape '[7, 7]'"),
        ({"forward": "self.body(images)"}, 8, "'Net' object has no attribute 'body'"),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
)
def test_error_in_user_code_has_its_place(parts, line, text, write, refused):
    path = write("net.py", failing(**parts))
    with refused(f"{path}", "failed", text, f"Mend {path}:{line}."):
        open_spec(f"{path}:make")


def test_very_long_error_is_cut(write, refused):
    path = write("net.py", failing(make="raise RuntimeError('missing key\\n' * 10_000)"))
    with refused("missing key", f"Mend {path}:11."):
        open_spec(f"{path}:make")


def test_module_without_a_file(monkeypatch, refused):
    module = types.ModuleType("typed_in")
    module.make = torch.nn.Flatten
    monkeypatch.setitem(sys.modules, "typed_in", module)
    with refused("'typed_in' lies in no file"):
        open_spec("typed_in:make")


def test_function_that_wants_arguments(write, refused):
    path = write("net.py", failing(arguments="size"))
    with refused("make() missing 1 required positional argument: 'size'", "weights.options alone"):
        open_spec(f"{path}:make")


def test_interrupt_is_not_swallowed(write):
    path = write("net.py", failing(make="raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        open_spec(f"{path}:make")


@pytest.mark.parametrize("value", ["None", "3", "(Net(), None)", "Net"])
def test_other_than_a_module(value, write, refused):
    path = write("net.py", failing(make=f"return {value}"))
    with refused(f"{path}:make", "expected a torch.nn.Module, but got"):
        open_spec(f"{path}:make")


@pytest.mark.parametrize(
    ("forward", "got"),
    [("images.flatten()", "(150528,)"), ("images.flatten(2)", "(1, 3, 50176)"), ("(images,)", "a tuple")],
)
def test_other_than_features(forward, got, write, refused):
    path = write("net.py", failing(forward=forward))
    with refused("(B, D) or (B, C, H, W)", got):
        open_spec(f"{path}:make")


# Preprocessing.


def test_preprocess_of_the_module_is_used(write):
    own = "from bob.backbones.preprocess import Preprocess"
    make = "net = Net(); net.preprocess = Preprocess(size=(32, 48), crop_mode='border'); return net"
    path = write("net.py", failing(top=own, make=make))
    assert open_spec(f"{path}:make").preprocess == Preprocess(size=(32, 48), crop_mode="border")


def test_wrong_preprocess_is_refused(write, refused):
    own = "from bob.backbones.preprocess import Preprocess"
    path = write("net.py", failing(top=own, make="net = Net(); net.preprocess = Preprocess(size=32); return net"))
    with refused("preprocess.size", "(height, width)", "32"):
        open_spec(f"{path}:make")


def test_pretrained_cfg_of_timm_is_used(write):
    path = write("net.py", failing(make="import timm; return timm.create_model('test_vit', num_classes=0)"))
    backbone = open_spec(f"{path}:make")
    assert backbone.preprocess.size == (160, 160)
    assert backbone.preprocess.mean == (0.5, 0.5, 0.5)


def test_card_overrides_what_the_module_says(write, make_card):
    path = write("net.py", failing(make="import timm; return timm.create_model('test_resnet', num_classes=0)"))
    card = make_card("custom", model=f"{path}:make", preprocess={"size": 96, "crop_mode": "squash"})
    backbone = open_backbone(card)
    assert backbone.preprocess.size == (96, 96) and backbone.preprocess.crop_mode == "squash"


def test_module_with_a_part_called_preprocess(write):
    make = "net = Net(); net.preprocess = nn.Identity(); return net"
    path = write("net.py", failing(make=make))
    assert open_spec(f"{path}:make").preprocess == Preprocess()


def test_backbone_of_the_users_own(write, make_card):
    text = """
        import torch
        from torch import nn
        from bob.backbones.base import Backbone
        from bob.backbones.preprocess import Preprocess
        from bob.cards import BackboneCard, Weights

        class Mine(Backbone):
            def encode_text(self, prompts):
                return torch.zeros(len(prompts), 2)

        def make():
            card = BackboneCard(name="inner", weights=Weights(source="pixels"))
            return Mine(card, nn.Flatten(), Preprocess(size=(4, 4)), {"mine": "1"}).train()
        """
    path = write("net.py", text)
    card = make_card("custom", model=f"{path}:make", preprocess={"mean": (0, 0, 0)})
    backbone = open_backbone(card)
    assert isinstance(backbone, Backbone) and not backbone.training
    assert backbone.encode_text(["a"]).shape == (1, 2)
    assert backbone.card == card
    assert backbone.preprocess == Preprocess(size=(4, 4), mean=(0, 0, 0))
    assert backbone.identity()["code"].keys() == {"mine", "source_sha256"}
    write("net.py", text.replace("zeros(", "ones("))
    assert open_backbone(card).identity() != backbone.identity()


# Neighbours, their hash, and names that others have too.


def test_neighbours_are_importable(write):
    write("parts/__init__.py", "")
    write("parts/body.py", "def width():\n    return 5\n")
    path = write(
        "net.py", failing(top="from parts.body import width", forward="images.mean((2, 3))[:, :1].repeat(1, width())")
    )
    assert open_spec(f"{path}:make").width() == 5


def test_hash_covers_what_is_imported_however_indirectly(write):
    write("parts/__init__.py", "")
    write("parts/body.py", "from . import deeper")
    write("parts/deeper.py", "VALUE = 1")
    write("late.py", "VALUE = 1")
    write("unused.py", "VALUE = 1")
    path = write("net.py", failing(top="from parts import body", make="import late; return Net()"))

    def sha():
        return open_spec(f"{path}:make").code["source_sha256"]

    before = sha()
    assert sha() == before
    write("unused.py", "VALUE = 2")
    assert sha() == before
    for name in ("parts/deeper.py", "parts/body.py", "parts/__init__.py", "late.py"):
        write(name, "VALUE = 2")
        assert sha() != before, name
        before = sha()
    write("net.py", failing(top="from parts import body  # comment", make="import late; return Net()"))
    assert sha() != before


def test_hash_does_not_depend_on_what_else_was_opened(write):
    write("common.py", "")
    write("helper_a.py", "")
    a = write("a.py", failing(top="import common, helper_a"))
    b = write("b.py", failing(top="import common"))
    alone = open_spec(f"{b}:make").identity()
    open_spec(f"{a}:make")
    assert open_spec(f"{b}:make").identity() == alone


def test_hash_survives_links_and_unreadable_neighbours(write, tmp_path_factory):
    target = tmp_path_factory.mktemp("other") / "linked.py"
    target.write_text("VALUE = 1\n")
    path = write("net.py", failing(top="import linked", make="return Net()\n    import broken"))
    (path.parent / "linked.py").symlink_to(target)
    write("broken.py", "not python")
    before = open_spec(f"{path}:make").code
    target.write_text("VALUE = 2\n")
    assert open_spec(f"{path}:make").code != before


def test_hash_of_an_installed_package_is_of_its_files():
    import torchvision.models.resnet as module

    assert len(source_sha256(module)) == 64
    assert source_sha256(module) == source_sha256(sys.modules["torchvision"])


def test_bob_itself_is_not_the_users_code(write, monkeypatch):
    """A file in a checkout of bob, whose sources lie below it."""
    path = write("net.py", failing(top="from bob.errors import UserError"))
    write("bob/__init__.py", "")
    write("bob/errors.py", "")
    monkeypatch.setattr("bob.backbones.user_code._BOB", path.parent / "bob")
    before = open_spec(f"{path}:make").code
    write("bob/errors.py", "VALUE = 2")
    assert open_spec(f"{path}:make").code == before


def test_two_folders_with_neighbours_of_one_name(write):
    """`experiment_a/net.py` and `experiment_b/net.py`, each with a `parts.py`."""
    widths = {}
    for folder, width in (("a", 2), ("b", 3), ("c", 4)):
        write(f"{folder}/parts.py", f"WIDTH = {width}\n")
        write(f"{folder}/layers/__init__.py", f"WIDTH = {width}\n")
        text = failing(
            top="import parts, layers",
            make="assert parts.WIDTH == layers.WIDTH; return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), "
            "nn.Linear(3, parts.WIDTH))",
        )
        widths[write(f"{folder}/net.py", text)] = width
    for path, width in [*widths.items(), *widths.items()]:
        assert open_spec(f"{path}:make").width() == width


@pytest.mark.parametrize("name", ["torch", "bob", "timm", "json", "numpy"])
def test_file_named_as_a_library_hides_nothing(name, write, tmp_path, monkeypatch):
    library = sys.modules.get(name)
    path = write(f"{name}.py", failing(top="import json, numpy, timm, torch, bob.errors"))
    assert open_spec(f"{path}:make").width() == 3
    assert sys.modules.get(name) is library


def test_from_the_command_line_in_the_folder_of_such_names(write, tmp_path):
    """In a process of its own, as everything is imported there for the first time."""
    for name in ("torch", "bob", "timm", "pandas", "typer", "random"):
        write(f"{name}.py", FIVE_LINES)
    script = (
        "import sys; sys.path.remove(''); from bob.backbones.sources import open_backbone, resolve_backbone;"
        "print([open_backbone(resolve_backbone(s, {})).width() for s in sys.argv[1:]]);"
        "import pandas, random, timm, torch; print(pandas.DataFrame.__name__, timm.create_model.__name__)"
    )
    specs = ["torch.py:make", "bob.py:make", "timm.py:make", "pandas.py:make"]
    command = [sys.executable, "-c", script, *specs]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["[12, 12, 12, 12]", "DataFrame create_model"], done.stderr


def test_frozen_batch_norm(write):
    path = write("net.py", failing(make="return nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1)).train()"))
    backbone = open_spec(f"{path}:make")
    mean = backbone.model[0].running_mean.clone()
    backbone.embed(torch.rand(4, 3, 8, 8))
    assert torch.equal(backbone.model[0].running_mean, mean)


# Blocks and maps.


def images(size=64):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_blocks_of_a_timm_model_are_timms(write):
    path = write("net.py", failing(make="import timm; return timm.create_model('test_resnet', num_classes=0)"))
    backbone = open_spec(f"{path}:make")
    with torch.inference_mode():
        theirs = backbone.model.forward_intermediates(images(), intermediates_only=True)
        layers, maps = backbone.layers(images()), backbone.feature_maps(images())
    assert backbone.strides == [2, 4, 8, 16, 32]
    assert all(torch.equal(layer.map, map_) for layer, map_ in zip(layers, theirs, strict=True))
    assert torch.equal(maps[-1], theirs[-1])


def test_blocks_of_a_plain_module_are_found(write):
    make = (
        "import torchvision; net = torchvision.models.mobilenet_v3_small(); net.classifier = nn.Flatten(); return net"
    )
    backbone = open_spec(f"{write('net.py', failing(make=make))}:make")
    with torch.inference_mode():
        maps, last = backbone.feature_maps(images()), backbone.layers(images(), [-1])[0]
        torch.testing.assert_close(last.pooled, backbone.embed(images()))
    assert backbone.strides == [2, 4, 8, 16, 32]
    assert [map_.shape[2] for map_ in maps] == [32, 16, 8, 4, 2]


def test_blocks_of_a_backbone_are_its_own(write):
    text = """
        from torch import nn
        from bob.backbones.base import Backbone
        from bob.backbones.preprocess import Preprocess
        from bob.cards import BackboneCard, Weights

        class Mine(Backbone):
            strides = [3]

            def feature_maps(self, images):
                return [images[:, :, ::3, ::3]]

        def make():
            card = BackboneCard(name="inner", weights=Weights(source="pixels"))
            return Mine(card, nn.Flatten(), Preprocess(size=(6, 6)), {})
        """
    backbone = open_spec(f"{write('net.py', text)}:make")
    assert backbone.strides == [3] and backbone.feature_maps(images(6))[0].shape == (2, 3, 2, 2)


def test_model_without_blocks_still_embeds(write, refused):
    path = write("my_model.py", FIVE_LINES)
    backbone = open_spec(f"{path}:make")
    assert backbone.embed(images()).shape == (2, 12)
    for ask in (lambda: backbone.strides, lambda: backbone.layers(images()), lambda: backbone.feature_maps(images())):
        with refused(f"{path}:make", "no blocks to read one by one"):
            ask()


def test_options_of_the_card_reach_the_function(write, make_card, refused):
    path = write("net.py", "from torch import nn\n\ndef make(width=2):\n    return nn.Conv2d(3, width, 3)\n")
    assert open_backbone(make_card("custom", model=f"{path}:make", options={"width": 5})).width() == 5
    with refused("unexpected keyword argument 'wdth'", "weights.options"):
        open_backbone(make_card("custom", model=f"{path}:make", options={"wdth": 5}))
