"""What a card says of further sets, of queries and of factors: each mistake is one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bob.catalogue import read_card
from bob.errors import UserError
from bob.task_cards import TaskCard

HEAD = 'name = "x"\nadapter = "{}"\n{}\n[data]\nsource = "shapes"\n'
NOISE = '[[sets]]\nname = "noise"\ncorruptions = ["fog"]\n'


@pytest.mark.parametrize(
    ("adapter", "top", "tables", "said"),
    [
        ("ood", "", "", "ood needs [[sets]] to test on."),
        ("ood", "", '[[sets]]\nname = "n"\n', "key 'sets.0': it needs a 'source', or 'corruptions'"),
        ("ood", "", NOISE + "severities = []\n", "'severities' is empty"),
        ("ood", "", NOISE + "severities = [6]\n", "key 'sets.0.severities.0'"),
        ("ood", "", NOISE + NOISE, "two of the sets are called 'noise'"),
        ("ood", "", NOISE + 'sorce = "shapes"\n', "Did you mean: source?"),
        ("classification", "", NOISE, "'sets' is for ood and ood_detection, not for classification"),
        ("ood", 'factors = "imagenet-x"', NOISE, "'factors' is for factors, not for ood"),
        ("factors", 'factors = "pose"', "", "key 'factors'"),
        ("factors", "", '[retrieval]\nrule = "two_level"\ncap = 3\n', "'retrieval' is for retrieval, not for factors"),
        ("retrieval", "", '[retrieval]\nrule = "first"\n', "key 'retrieval.rule'"),
        ("retrieval", "", "[retrieval]\nquery_fraction = 1.0\n", "key 'retrieval.query_fraction'"),
        ("retrieval", "score_at = 512", "", "'score_at' is for segmentation, not for retrieval"),
    ],
)
def test_mistakes(adapter: str, top: str, tables: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(HEAD.format(adapter, top) + tables)
    with pytest.raises(UserError) as error:
        read_card(path, TaskCard)
    line = str(error.value)
    assert line.startswith(str(path)) and said in line and "\n" not in line and "''" not in line


def test_defaults_are_those_of_the_kind(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(HEAD.format("ood", "") + NOISE)
    card = read_card(path, TaskCard)
    assert card.primary == "shifted_top1" and card.sets[0].severities == (1, 2, 3, 4, 5)
    path.write_text(HEAD.format("retrieval", ""))
    card = read_card(path, TaskCard)
    assert card.protocols == ("cosine",) and card.retrieval.rule == "two_level"
