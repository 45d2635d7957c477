"""The table of tests/mutations/ fits the code: run.py takes minutes, and a renamed expression is seen here at once."""

import ast

from cosmos_predict25.devtools.environment import REPO
from cosmos_predict25.tests.mutations.table import TABLE


def test_what_a_row_breaks_is_there_once_and_so_is_its_test():
    for row in TABLE:
        before = (REPO / row.file).read_text(encoding="utf-8")
        assert before.count(row.old) == 1, f"{row.file} has {row.old!r} {before.count(row.old)} times: update {row!r}"
        if row.file.endswith(".py"):
            ast.parse(before.replace(row.old, row.new))
        file, _, name = row.test.partition("::")
        assert f"\ndef {name}(" in (REPO / "tests" / file).read_text(encoding="utf-8"), f"update the test of {row!r}"


def test_every_row_has_a_name_of_its_own():
    assert len({row.name for row in TABLE}) == len(TABLE)
