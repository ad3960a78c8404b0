"""What is typed again is what was asked for."""

from pathlib import Path

import pytest

from kontrast.cli import _parse
from kontrast.commands.check import Check
from kontrast.commands.flags import flags
from kontrast.commands.search import Search


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("search", Search(run=Path("r"), query="-x [a]", out=(Path("a b.csv"), Path("c.html")), alias_paths=True)),
        ("search", Search(run=Path("r"), image=Path("x.png"), data="d", top=3, window="-160:240", limit=7)),
        ("data check", Check(data="d", thumbnails=False, turned=True, split=Path("s.csv"), max_unreadable=0.5)),
    ],
    ids=["text", "image", "check"],
)
def test_the_flags_of_a_command_give_its_options_again(verb, options):
    assert _parse([*verb.split(), *flags(options)])[1] == options


def test_options_at_their_defaults_need_no_flags():
    assert flags(Search(run=Path("r"), query="q"), without=("run",)) == ["--query", "q"]
