"""`bob check` end to end: every check in one report, exit codes, JSON, and whole backbones with a planted fault."""

import json
import math
import re
from dataclasses import replace

import pytest
from PIL import Image

from bob.backbones.sources import open_backbone
from bob.check.base import Finding
from bob.check.report import Report, examine
from bob.progress import Reporter

CHECKS = ["frozen", "determinism", "neighbours", "scale", "drift", "normalisation", "batchnorm", "parameters"]
ON_FEATURES = ["pooling", "rank", "dimensions"]
MINE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 7, stride=8), torch.nn.ReLU())

    def forward(self, x):
        return {result}

def make():
    torch.manual_seed(0)
    return Net()
"""


@pytest.fixture
def examined(how, tmp_path):
    """A function from a card to its report, without k-NN unless asked for."""
    return lambda card, quick=True: examine(open_backbone(card), how, tmp_path, Reporter(quiet=True), quick)


@pytest.fixture
def bob_check(home, tmp_path, monkeypatch, capfd):
    """Run `bob check` in an empty folder: exit code, standard output, standard error."""
    from bob.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(["check", *map(str, arguments), "--device", "cpu"])
        return (int(stopped.value.code or 0), *capfd.readouterr())

    return run


def of(report):
    return {finding.name: finding for finding in report.findings}


def test_a_healthy_backbone_passes_everything(altered, examined):
    report = examined(altered("efficientnet_lite0"), quick=False)
    assert [finding.name for finding in report.findings] == [*CHECKS, "knn", *ON_FEATURES, "reference"]
    assert {finding.status for finding in report.findings if finding.name != "reference"} == {"pass"}, report.lines()
    assert report.passed and report.verdict() == "PASS: 12 checks; skipped: reference."
    facts = report.facts
    assert (facts["width"], facts["parameters"]) == (1280, 3_371_008)
    assert facts["flops"] > 1e8 and facts["images_per_second"] > 0 and facts["peak_memory_bytes"] > 1e8


def test_a_random_twin_is_judged_as_a_baseline(altered, examined):
    report = examined(altered("efficientnet_lite0.random"), quick=False)
    found = of(report)
    assert report.passed
    assert found["batchnorm"].status == found["knn"].status == "warn"
    assert "baseline" in found["batchnorm"].remedy and "baseline" in found["knn"].remedy
    assert "random initialisation" not in found["knn"].detail  # it is no rival of its own


def test_the_same_without_learning_and_no_baseline_fails(altered, examined):
    card = altered("efficientnet_lite0.random").model_copy(update={"paradigm": "ssl", "parameters": 5})
    found = of(examined(card))
    assert found["batchnorm"].status == found["parameters"].status == "fail"
    assert "the card says 5" in found["parameters"].detail and "weights.model" in found["parameters"].remedy


def test_degenerate_baselines(bob_check):
    code, out, _ = bob_check("pixels")
    assert code == 0 and out.splitlines()[-1].startswith("PASS"), out
    code, out, _ = bob_check("constant")
    assert code == 0 and "WARN knn:" in out and "WARN rank:" in out and "Expected of a baseline" in out


def test_lines_for_people(bob_check, tmp_path):
    (tmp_path / "my.py").write_text(MINE.format(result="self.body(x)"))
    code, out, err = bob_check("my.py:make", "--quick")
    lines = out.splitlines()
    assert lines[0] == "backbone: my.py:make (custom:my.py:make, unknown)"
    sheet = tmp_path / "check-my.py-make.png"
    assert f"what it sees: {sheet}" in lines
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
    judged = [line for line in lines if re.match("(PASS|SKIP|WARN|FAIL) [a-z]+: ", line)]
    assert [line.split()[1].rstrip(":") for line in judged] == [*CHECKS, *ON_FEATURES, "reference"]
    assert all(" -> " in line for line in judged if line.startswith(("WARN", "FAIL")))
    assert lines[-1].startswith(("PASS", "WARN")) and code == 0
    assert "Running your code: my.py:make" in err


def test_a_fault_ends_in_exit_code_1_and_json_is_one_document(bob_check, tmp_path):
    (tmp_path / "my.py").write_text(MINE.format(result="self.body(x) - self.body(x).mean(0)"))
    code, out, _ = bob_check("my.py:make", "--json", "--sheet", "seen.png", "--quick")
    report = json.loads(out)
    assert code == 1 and report["passed"] is False and report["verdict"].startswith("FAIL: neighbours")
    assert report["facts"]["sheet"] == str(tmp_path / "seen.png") and (tmp_path / "seen.png").is_file()
    finding = next(finding for finding in report["findings"] if finding["name"] == "neighbours")
    assert finding["status"] == "fail" and finding["remedy"] and finding["values"]["alone"] > 0.01


def test_user_code_is_compared_with_a_copy_initialised_again(bob_check, tmp_path):
    (tmp_path / "my.py").write_text(MINE.format(result="self.body(x)"))
    _, out, _ = bob_check("my.py:make", "--json", "--quiet")
    knn = next(finding for finding in json.loads(out)["findings"] if finding["name"] == "knn")
    assert set(knn["values"]["rivals"]) == {"random initialisation", "raw pixels"}
    assert knn["status"] in ("warn", "fail")


def test_user_code_that_takes_one_image_only(bob_check, tmp_path):
    (tmp_path / "my.py").write_text(MINE.format(result="self.body(x).mean((2, 3)).view(1, 12)"))
    code, out, _ = bob_check("my.py:make")
    assert code == 1
    assert re.search("FAIL neighbours: .*RuntimeError.* -> Mend .*my.py:10", out)


def test_nan_does_not_stop_the_rest(bob_check, tmp_path):
    (tmp_path / "my.py").write_text(MINE.format(result="self.body(x).mean((2, 3)) * float('nan')"))
    code, out, _ = bob_check("my.py:make", "--json")
    report = json.loads(out)
    assert code == 1 and "scale" in report["verdict"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["efficientnet_lite9"], "Did you mean"),
        (["pixels", "--precision", "float8"], "Unknown precision"),
        (["pixels", "--sheet", "a.jpg"], ".png"),
        (["pixels", "--registry", "nowhere"], "nowhere"),
        (["none.py:make"], "none.py"),
    ],
)
def test_a_users_mistake_is_one_line(bob_check, arguments, text):
    code, out, err = bob_check(*arguments, "--quiet")
    assert (code, out) == (2, "") and err.count("\n") == 1 and text in err


def test_verdicts():
    facts = {"backbone": "a"}
    good, bad = Finding("x", "pass", "fine"), Finding("y", "warn", "odd", "Look.")
    assert Report(facts, (good,)).verdict() == "PASS: all 1 checks."
    assert Report(facts, (good, bad)).verdict().startswith("WARN: y.") and Report(facts, (good, bad)).passed
    failed = Report(facts, (good, bad, replace(bad, name="z", status="fail", values={"n": math.nan})))
    assert failed.verdict().startswith("FAIL: z.") and not failed.passed
    assert json.loads(failed.to_json())["findings"][2]["values"] == {"n": None}
