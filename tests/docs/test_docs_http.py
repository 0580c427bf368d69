"""What docs/http.md says is what the program does; `test_docs_apps` runs what it shows."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from gobanfast.frontends import asgi, wsgi
from gobanfast.frontends.http import guard

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text()


def test_options_are_those_of_a_guard():
    """The page names every option of an HttpGuard and no others."""
    sentence = re.search(r"are those of `gobanfast.frontends.http.guard.HttpGuard`: (.*?)\. In", PAGE, re.DOTALL)

    assert set(inspect.signature(guard.HttpGuard).parameters) - {"engine"} == set(re.findall(r"`(\w+)`", sentence[1]))


@pytest.mark.parametrize("frontend", [asgi, wsgi])
def test_frontends_spell_out_the_options_of_a_guard(frontend):
    """Name, kind, default and type of each, so that type checkers and `help` know them, and pass each one on."""
    expected = list(inspect.signature(guard.HttpGuard).parameters.values())
    application, *options = inspect.signature(frontend.Gobanfast).parameters.values()

    assert "app" == application.name
    assert expected == options
    source = inspect.getsource(frontend.Gobanfast.__init__)
    assert [] == [option.name for option in options[1:] if f"{option.name}={option.name}," not in source]


@pytest.mark.parametrize("path", re.findall(r"\]\((\.\./[^)]+)\)", PAGE))
def test_links_lead_somewhere(path):
    """What the page points to exists."""
    assert (Path(__file__).parents[2] / "docs" / path).exists()
