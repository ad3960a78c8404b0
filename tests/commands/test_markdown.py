"""Foreign text stays text, by a Markdown parser that lets HTML through."""

import re

import pytest
from markdown_it import MarkdownIt

from kontrast.commands.markdown import fenced, inline, table

HOSTILE = [
    "<script>alert(1)</script>",
    "a | b",
    "line\n\n# heading\n- item",
    "[click](javascript:alert(1))",
    "![x](http://evil/x.png)",
    "`code` **bold** _it_ ~~gone~~ <b>b</b>",
    "&lt;script&gt; &#60;img src=x onerror=y&#62;",
    "\\<i>\\|",
    "http://evil.example <http://evil.example> www.evil.example a@b.example",
    "\x00\x1b[31m\u202eleft\u200b\udcff",
    "$x$ \\(y\\) {{z}}",
    "ü 漢字",
]


def render(text):
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)


def shown(text):
    """What `inline` lets through of a text: no control characters, no runs of blanks."""
    text = text.encode("utf-8", "replace").decode()
    return " ".join(re.sub(r"[\x00-\x1f\u200b\u202e]", " ", text).split())


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_is_shown_letter_by_letter_and_makes_no_markup(text):
    import html

    page = render("Here: " + inline(text, longest=500))
    inner = re.fullmatch(r"<p>Here: (.*)</p>\n", page)
    assert inner, page
    assert "<" not in inner[1]
    assert html.unescape(inner[1]) == shown(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_stays_in_its_cell(text):
    page = render("\n".join(table(("a", "b"), [(inline(text, longest=500), "end")])))
    assert page.count("<tr>") == 2
    assert page.count("<td>") == 2
    assert "<td>end</td>" in page


def test_addresses_are_written_so_that_nothing_links_them():
    assert "://" not in inline("http://evil.example")
    assert "www." not in inline("www.evil.example WWW.EVIL.EXAMPLE").lower()
    assert "@" not in inline("a@b.example")


def test_long_names_are_shortened_and_empty_ones_named():
    assert inline("x" * 4000) == "x" * 79 + "…"
    assert inline("x" * 80) == "x" * 80
    assert inline("") == inline("\n\x00") == "(no name)"


def test_a_block_of_code_is_not_ended_by_its_content():
    page = render("\n".join(fenced(["a = '```'", "````", "<b>"])))
    assert page.count("<pre>") == 1
    assert page.endswith("````\n&lt;b&gt;\n</code></pre>\n")
