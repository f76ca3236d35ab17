"""A tiny classifier and orders of its labels, for the tests of `jettison init`."""

from pathlib import Path

import pytest

from init_orders import LABELS, orders
from task_writing import write_jsonl
from tiny import make_tiny_bert


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("models") / "large", LABELS, layers=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "orders.jsonl", orders())
