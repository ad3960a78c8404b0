"""The page says what it was given, to everyone, loads nothing and runs nothing that is not its own."""

import base64
import hashlib
import re
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from html import escape, unescape
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise

import pytest

from kontrast.study.contents import Difference, Page, Row, without_pictures
from kontrast.study.page import render, write

IMAGE = "<img src=x onerror=\"document.title='owned'\">.png"
HOSTILE = [
    IMAGE,
    "</title></pre></style></svg><script>document.title='owned'</script>",
    "{{ page.settings }} {% raw %} &amp; \" '",
    "a" * 4000,
    "صورة الأشعة \u202e.gnp",
    "\x00\x1b[31m\x9b \udcff \ufffe",
]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    value: float
    low: float
    high: float
    of_runs: float = 0.5
    scope: str = "over seeds, draws and test images"


def estimate(value, margin=0.0131):
    return Estimate(value=value, low=value - margin, high=value + margin)


ARMS = {"simclr": ("SimCLR", "method"), "moco_v2": ("MoCo v2", "method"), "supervised": ("From scratch", "baseline")}


def row(arm="simclr", labels=40, value=0.8134, **changes):
    title, kind = ARMS[arm]
    scores = {"auroc": estimate(value + 0.1, 0.004), "accuracy": estimate(value)}
    row = Row(
        arm=arm,
        title=title,
        kind=kind,
        fraction=labels / 4000,
        num_labels=labels,
        scores=scores,
        validation=0.8764 if kind == "method" else None,
        num_seeds=3,
        num_draws=5,
    )
    return replace(row, **changes)


def difference(arm="simclr", labels=40, value=0.0664, finding="helps"):
    return Difference(
        arm=arm,
        title=ARMS[arm][0],
        baseline="supervised",
        num_labels=labels,
        metric="accuracy",
        estimate=estimate(value, 0.01),
        finding=finding,
    )


def curve(num_epochs=6, start=5.0):
    return [
        {"epoch": float(i), "loss": start / i, "spread": 0.9, "effective_rank": 10.0 + i, "alignment": 0.5}
        | ({"knn_accuracy": 0.5 + 0.01 * i} if i % 2 == 0 else {})
        for i in range(1, num_epochs + 1)
    ]


def page(**changes):
    rows = [
        row(arm, labels, 0.5 + i / 10 + j / 100) for i, labels in enumerate((40, 400)) for j, arm in enumerate(ARMS)
    ]
    page = Page(
        title="Study of digits-5k",
        verdict=("With 40 labels, pre-training helps.", "With 400 it does not."),
        recommendation="Use SimCLR.",
        metric="accuracy",
        facts={"Images": "5,000"},
        rows=tuple(rows),
        differences=(difference(), difference("moco_v2", 400, -0.02, "hurts")),
        curves={"simclr-seed0": curve(), "simclr-seed1": curve(start=6.0), "moco_v2-seed0": curve(), "other": curve()},
        health=("No run looked collapsed.",),
        notes=("Digits are easy.",),
        skipped=(("a.png", "unreadable"),),
        settings="seeds: 3\ndraws: 5\n",
        versions={"torch": "2.13.0"},
        command="kontrast study sample:digits-5k",
    )
    return replace(page, **changes)


@cache
def rendered():
    return render(page())


class Reader(HTMLParser):
    """The tags, attributes, rows of tables and text of a page, as a browser sees them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.rows, self.headings, self.labels, self._text = [], [], [], [], [], []
        self._in_cell = self._unseen = False
        self.feed(html)
        self.text = " ".join("".join(self._text).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._unseen = tag in ("style", "script")
        self.attributes += attributes
        self.labels += [value for name, value in attributes if name == "aria-label"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._unseen = False
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._unseen:
            return
        self._text.append(data)
        if self._in_cell:
            self.rows[-1][-1] += data

    def cells(self):
        return [[" ".join(cell.split()) for cell in row] for row in self.rows]


def test_the_verdict_comes_before_everything_else_and_headings_are_in_order():
    html = rendered()
    headings = [int(level) for level in re.findall(r"<h(\d)", html)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(headings))
    assert html.index("With 40 labels, pre-training helps.") < html.index("<h2")
    assert html.index("Use SimCLR.") < html.index("<svg")


def test_the_table_holds_every_score_with_its_interval_the_main_metric_first():
    given = page()
    cells = Reader(render(given)).cells()
    assert cells[0] == ["Labels and arm", "Accuracy", "AUROC", "Validation", "Seeds × draws"]
    expected = []
    for labels, share in ((40, "1 %"), (400, "10 %")):
        expected.append([f"{labels} labels ({share})"])
        for row in (row for row in given.rows if row.num_labels == labels):
            scores = (row.scores["accuracy"], row.scores["auroc"])
            shown = [f"{100 * s.value:.1f} % [{100 * s.low:.1f}, {100 * s.high:.1f}]" for s in scores]
            validation = "–" if row.validation is None else "87.6 %"
            expected.append([row.title, *shown, validation, "3 × 5"])
    assert cells[1 : 1 + len(expected)] == expected


def test_the_table_of_differences_holds_points_with_their_signs_and_the_finding():
    cells = Reader(rendered()).cells()
    assert ["SimCLR", "40", "+6.6 [5.6, 7.6]", "", "helps"] in cells
    assert ["MoCo v2", "400", "−2.0 [−3.0, −1.0]", "", "hurts"] in cells
    assert "each arm minus From scratch, with 95 % intervals" in Reader(rendered()).text


def test_scores_that_are_not_defined_are_said_so():
    nan = float("nan")
    rows = (row(scores={"accuracy": estimate(0.8), "auroc": Estimate(value=nan, low=nan, high=nan)}),)
    assert "not defined (no interval)" in Reader(render(page(rows=rows))).cells()[2]


def test_every_figure_tells_its_numbers_to_who_cannot_see_it():
    reader = Reader(rendered())
    figures = [attributes for tag, attributes in reader.tags if tag == "svg" and "aria-hidden" not in attributes]
    assert len(figures) > 5
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in figures)
    assert any("SimCLR: 50.0 % [48.7, 51.3] with 40 labels, 60.0 %" in label for label in reader.labels)
    assert any(
        "Effective rank by epoch" in label and "from 11 at epoch 1 to 16 at epoch 6" in label for label in reader.labels
    )


def test_the_loss_has_a_panel_for_each_method_and_other_measures_share_one():
    reader = Reader(rendered())
    assert [label.split(" by ")[0] for label in reader.labels if " by epoch" in label] == [
        "Loss of SimCLR",
        "Loss of MoCo v2",
        "Loss of other",
        "k-NN accuracy",
        "Spread",
        "Effective rank",
        "Alignment",
    ]
    assert "SimCLR (2 runs)" in reader.text


def test_the_scope_of_the_intervals_is_said_once():
    assert Reader(rendered()).text.count("over seeds, draws and test images") == 1


def test_the_table_of_a_learned_policy_holds_where_each_operation_began_and_ended(full_html):
    cells = Reader(full_html).cells()
    heads = ["Operation", "Start", "End with 86 labels", "End with 214 labels", "Does nothing at", "What its number is"]
    at = cells.index(heads)
    assert cells[at + 1 : at + 3] == [
        ["area", "0.400", "0.295 0.290 to 0.300", "0.400", "1", "share of the image area, smallest"],
        ["rotation", "15.0", "22.8 22.5 to 23.2", "15.0", "0", "degrees, largest to either side"],
    ]


def test_data_health_notes_settings_versions_and_command_are_there():
    text = Reader(rendered()).text
    for said in (
        "5,000",
        "No run looked collapsed.",
        "Digits are easy.",
        "seeds: 3 draws: 5",
        "2.13.0",
        "kontrast study sample",
    ):
        assert said in text


def test_only_the_first_fifty_skipped_files_are_named_and_the_rest_are_counted():
    text = Reader(render(page(skipped=tuple((f"file-{i}.png", "unreadable") for i in range(1234))))).text
    assert "Skipped files: 1,234" in text
    assert "file-49.png" in text
    assert "file-50.png" not in text
    assert "and 1,184 more" in text


def poisoned(value, poison, name=""):
    """Every text of a page with something hostile before it, but for those that only take given values."""
    if isinstance(value, str):
        return value if name in ("media", "kind", "part") else f"{poison} {value}"
    if isinstance(value, tuple):
        return tuple(poisoned(each, poison) for each in value)
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        return {poisoned(key, poison): poisoned(each, poison) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, Estimate):
        return replace(value, **{f.name: poisoned(getattr(value, f.name), poison, f.name) for f in fields(value)})
    return value


@pytest.mark.parametrize("poison", [" ".join(HOSTILE), "\n".join(HOSTILE[::-1])], ids=["one line", "backwards"])
def test_hostile_strings_stay_text_wherever_they_stand(full, poison):
    html = render(poisoned(full, poison))
    reader = Reader(html)
    tags = [tag for tag, _ in reader.tags]
    assert {"iframe", "link", "object", "base", "form"}.isdisjoint(tags)
    assert tags.count("script") == 1
    assert all(
        attributes["src"].startswith("data:image/png;base64,") for tag, attributes in reader.tags if tag == "img"
    )
    assert tags == [tag for tag, _ in Reader(render(poisoned(full, "b" * len(poison)))).tags]
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert html.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", html)


def test_hostile_names_are_shown_as_they_are():
    html = render(page(title=IMAGE, skipped=tuple((name, name) for name in HOSTILE)))
    assert IMAGE in Reader(html).text
    assert escape(IMAGE, quote=False).replace('"', "&#34;").replace("'", "&#39;") in html
    assert "(4,000 characters)" in Reader(html).text


def test_the_page_reaches_for_nothing_outside_itself(full):
    html = render(full)
    addresses = ("src", "href", "xlink:href", "action", "data", "srcset", "poster", "formaction")
    links = [value for name, value in Reader(html).attributes if name in addresses]
    assert [link for link in links if not re.match("#|data:image/png;base64,", link)] == []
    assert "http" not in html.replace("http-equiv", "")
    assert "@import" not in html
    assert [url for url in re.findall(r"url\(([^)]{12})", html) if not re.match("#|data:image/", url)] == []


def test_the_policy_lets_the_one_script_run_and_nothing_else(full):
    html = render(full)
    policy = next(a["content"] for _, a in Reader(html).tags if a.get("http-equiv") == "Content-Security-Policy")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert dict(part.split(" ", 1) for part in policy.split("; ")) == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "script-src": f"'sha256-{known}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_the_script_makes_no_code_and_no_markup_of_text():
    script = (files("kontrast.study") / "template" / "page.js").read_text(encoding="utf-8")
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval",
        "Function(",
        "fetch",
        "import",
    ):
        assert word not in script


def test_a_picture_that_is_no_image_is_refused(full):
    for media in ("text/html", 'image/png"', "image/png;x=);}</style>", ""):
        given = replace(full.queries[0].picture, media=media)
        with pytest.raises(ValueError, match="media type of a picture"):
            render(page(curves={}, rows=(), gallery=replace(full.gallery, rows=((given,),))))


def test_without_pictures_no_image_is_on_the_page_and_the_rest_stays(full, full_html):
    html = render(without_pictures(full))
    assert "data:image" in full_html
    assert "data:image" not in html
    assert full.closeup.hardest[0].name in unescape(html)
    assert "Images are left out of this page" in html
    assert html.count("<use ") == full_html.count("<use ")


def test_the_page_names_its_language_its_viewport_and_the_scope_of_every_header():
    reader = Reader(rendered())
    assert ("html", {"lang": "en"}) in reader.tags
    assert any(attributes.get("name") == "viewport" for _, attributes in reader.tags)
    assert all("scope" in attributes for tag, attributes in reader.tags if tag == "th")
    assert [tag for tag, _ in reader.tags].count("caption") == [tag for tag, _ in reader.tags].count("table") == 2


def test_headings_are_in_order_and_the_contents_lead_to_those_that_are_there(full):
    for given in (full, page()):
        html = render(given)
        levels = [int(level) for level in re.findall(r"<h(\d)", html)]
        assert levels.count(1) == 1
        assert all(b - a <= 1 for a, b in pairwise(levels))
        assert re.findall(r'<li><a href="#(\w+)">', html) == re.findall(r'<h2 id="(\w+)">', html)[1:]


ORDER = [
    *(
        "With 86 labels",
        "Use SimCLR",
        "More draws would",
        "What the data are",
        "healthy",
        "broken.png",
        "Scores by number",
    ),
    *("Labels saved", "Paired differences", "Class by class", "Map of the test images", "Nearest neighbours"),
    *(
        "What the augmentation does",
        "What was learned",
        "What the model samples",
        "Training and health",
        "What to keep in mind",
        "To repeat this study",
    ),
]


def test_the_sections_come_in_the_order_in_which_a_reader_asks(full):
    body = re.sub(r"<nav.*?</nav>", "", render(full), flags=re.DOTALL)
    places = [body.index(words) for words in ORDER]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("field", "nothing", "traces"),
    [
        ("outlook", "", ["What would change it"]),
        ("counts", (), ["Labelled for training"]),
        ("savings", (), ["Labels saved", "From scratch needs"]),
        ("closeup", None, ["Class by class", "taken for", "calibration"]),
        ("atlas", None, ["Map of", "data-code", "projection-1", 'class="plot']),
        ("queries", (), ["Nearest neighbours", "cosine"]),
        ("gallery", None, ["augmentation does", 'class="views']),
        ("learned", (), ["What was learned", "Learned policy", 'class="strip', "--policy"]),
        ("samples", (), ["What the model samples", 'class="sheets', "after 30 epochs"]),
        ("cost", {}, ["Hardware"]),
        ("repeat", "", ["its folder holds"]),
        ("notes", (), ["keep in mind"]),
        ("skipped", (), ["Skipped files"]),
    ],
)
def test_what_is_absent_leaves_no_empty_section(full, field, nothing, traces):
    def said(page):
        return re.sub(r"<(style|script)>.*?</\1>", "", render(replace(page, curves={}, rows=())), flags=re.DOTALL)

    with_it, without = said(full), said(replace(full, **{field: nothing}))
    assert [trace for trace in traces if trace not in with_it] == []
    assert [trace for trace in traces if trace in without] == []


def test_ids_are_unique_on_the_page():
    ids = [value for name, value in Reader(rendered()).attributes if name == "id"]
    assert len(set(ids)) == len(ids)


def test_equal_pages_give_equal_bytes():
    assert render(page()) == rendered()


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": (row(), row("supervised", num_seeds=1, num_draws=1, fraction=None)), "differences": ()},
        {"rows": (row(),), "curves": {}, "health": (), "notes": (), "skipped": (), "differences": ()},
        {"rows": (), "differences": (), "curves": {}, "facts": {}, "versions": {}, "verdict": ("Nothing yet.",)},
        {"curves": {"simclr-seed0": [], "moco_v2": [{"epoch": 1.0, "loss": float("nan")}], "x": [{"loss": 1.0}]}},
        {"metric": "dice"},
        {"rows": (row(labels=1), row(labels=2), row("supervised", labels=1))},
    ],
    ids=["one fraction, one seed", "bare", "empty", "broken curves", "metric without scores", "few labels"],
)
def test_a_page_with_little_on_it_renders(changes):
    assert "</html>" in render(page(**changes))


def test_one_number_of_labels_is_drawn_as_one_row_an_arm():
    html = render(page(rows=(row(), row("supervised", value=0.7474))))
    assert "log scale" not in html
    assert ">81.3 % [80.0, 82.7]</text>" in html


def test_write_replaces_the_old_page_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    write(page(), path)
    assert path.read_text(encoding="utf-8") == rendered()
    assert list(tmp_path.iterdir()) == [path]


def test_a_page_that_cannot_be_rendered_or_written_leaves_the_old_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(AttributeError):
        write(page(rows=(None,)), path)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(page(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
