"""Words with one meaning: names that were given up stay away, and first lines of modules name a mechanism."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GIVEN_UP = {  # by the word that is used now; see "Words" in CONTRIBUTING.md
    "fingerprint": r"print_of|gbf_headers_print|GBF_PRINT_BYTES|_has_print|enum Print",
    "fraction, Tally, max_changed": r"WIDE_SHARE|class Share\b|Budget\(share=|Metrics\([^)\n]*\bshare=",
    "connection table": r"SignalTable|gbf_signals|signal_table",
    "sketch": r"gbf_counts",
    "Arrow columns": r"gbf_strings",
    "PartialHeaders": r"SomeHeaders",
    "model": r"class \w+Text\(",
}
pytestmark = pytest.mark.skipif(
    not (ROOT / "gobanfast" / "csrc").is_dir(), reason="no sources beside the installed package"
)
QUESTION = re.compile(r"(What|Who|Whom|How|Why|Where|Which)\b")


def sources() -> list[Path]:
    """Files of the package that are written by hand."""
    found = [path for ending in ("py", "pyx", "pxd", "pyi", "c", "h") for path in ROOT.glob(f"gobanfast/**/*.{ending}")]
    written = [path for path in found if path.suffix != ".c" or "csrc" in path.parts]
    assert len(written) > 200
    return written


def first_line(path: Path) -> str:
    """What a file begins with, without the marks of the comment or docstring around it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".c", ".h"):
        return text.removeprefix("/*").lstrip().split("\n", 1)[0]
    docstring = ast.get_docstring(ast.parse(text)) if path.suffix == ".py" else text.removeprefix('"""')
    return (docstring or "").split("\n", 1)[0]


@pytest.mark.parametrize(("word", "pattern"), GIVEN_UP.items())
def test_names_that_were_given_up_stay_away(word: str, pattern: str) -> None:
    """A thing has one word, and the word one thing: nothing in the package has the old name of it."""
    old = re.compile(rf"(?<!\w)(?:{pattern})")

    assert [] == [str(path.relative_to(ROOT)) for path in sources() if old.search(path.read_text(encoding="utf-8"))], (
        word
    )


def test_first_lines_are_no_answers_to_a_question() -> None:
    """A module begins with a noun phrase or an imperative, not with "What ..." or "Who ..."."""
    assert [] == [str(path.relative_to(ROOT)) for path in sources() if QUESTION.match(first_line(path))]
