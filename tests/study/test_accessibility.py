"""The page in a browser: everyone can use it, it stays on the screen, nothing leaves it, nothing foreign runs."""

import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from kontrast.study.contents import Column
from kontrast.study.page import render, write

IMAGE = "<img src=x onerror=\"document.title='owned'\">.png"
HOSTILE = [
    IMAGE,
    "</title></pre></style></svg><script>document.title='owned'</script>",
    "');document.title='owned';//",
    "a" * 4000,
    "صورة الأشعة \u202e.gnp",
    "\x00\x1b[31m\x9b \udcff \ufffe",
]
SORTED = (
    "[...document.querySelectorAll('#closeup ~ .scroll tbody')[0].rows].map(row => row.cells[%d].textContent.trim())"
)


@pytest.fixture(scope="session")
def written(full, full_html, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(full_html, encoding="utf-8")
    return path


def of_hostile(learned, evil):
    """A policy that was learned, with hostile names."""
    (each,) = learned.views
    return replace(
        learned,
        title=evil[3],
        note=" ".join(HOSTILE),
        findings=evil,
        operations=tuple(replace(learned.operations[0], name=text, what=text) for text in evil),
        run=evil[3],
        views=tuple(replace(each, name=text) for text in evil),
        policy="\n".join(HOSTILE),
        path=evil[3],
    )


@pytest.fixture(scope="session")
def hostile(full, tmp_path_factory):
    """A page with hostile names and labels wherever foreign ones come in, without the policy that would help."""
    evil = tuple(f"{i} {text}" for i, text in enumerate(HOSTILE))
    near = tuple(replace(full.queries[0].neighbours[0], name=text, label=text) for text in evil)
    hard = tuple(replace(full.closeup.hardest[0], name=text, truth=text, predicted=text) for text in evil)
    table = replace(
        full.closeup.classes,
        columns=tuple(Column(title=t) for t in evil[:2]),
        rows=tuple(replace(full.closeup.classes.rows[0], name=t) for t in evil),
    )
    shares = tuple(map(tuple, np.full((6, 6), 1 / 6).tolist()))
    page = replace(
        full,
        verdict=evil,
        outlook=" ".join(HOSTILE),
        facts=dict(zip(evil, evil, strict=True)),
        counts=tuple(replace(full.counts[0], name=text) for text in evil),
        savings=tuple(replace(full.savings[0], title=text) for text in evil),
        differences=tuple(replace(full.differences[0], title=text, baseline=text) for text in evil),
        closeup=replace(
            full.closeup,
            title=evil[3],
            classes=table,
            confusion=replace(full.closeup.confusion, classes=evil, shares=shares),
            hardest=hard,
        ),
        atlas=replace(full.atlas, title=evil[3], classes=evil, names=(*evil, *evil[:3])),
        queries=(replace(full.queries[0], name=evil[3], label=evil[3], neighbours=near),),
        gallery=replace(full.gallery, note=evil[3], names=(evil[3],)),
        learned=(of_hostile(full.learned[0], evil),),
        samples=(replace(full.samples[0], title=evil[3], note=" ".join(HOSTILE)),),
        skipped=tuple((text, text) for text in evil),
        settings="\n".join(HOSTILE),
        cost=dict(zip(evil, evil, strict=True)),
        repeat=" ".join(HOSTILE),
    )
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    path.write_text(re.sub(r"<meta http-equiv[^>]*>", "", render(page)), encoding="utf-8")
    return path


def test_no_request_leaves_the_page_and_nothing_goes_wrong(browser, written):
    for scheme in ("light", "dark"):
        browser.open(written, scheme=scheme)
        browser.run("document.querySelectorAll('input, summary, button').forEach(control => control.click())")
        browser.run("window.scrollTo(0, document.body.scrollHeight)")
        assert [address for address in browser.requests() if not address.startswith("data:image/png;base64,")] == []
        assert {"Runtime.exceptionThrown", "Log.entryAdded"}.isdisjoint(event.get("method") for event in browser.events)


@pytest.mark.parametrize("width", [1280, 768, 360])
def test_nothing_is_wider_than_the_screen(browser, written, hostile, width):
    for path in (written, hostile):
        browser.open(path, width=width)
        assert browser.run("document.documentElement.scrollWidth") <= width


def test_nothing_is_wider_than_a_sheet_of_paper(browser, written):
    browser.open(written, width=680, media="print")  # A4 without its margins
    assert browser.run("document.documentElement.scrollWidth") <= 680


def test_hostile_strings_do_nothing_even_without_the_policy(browser, hostile):
    browser.open(hostile)
    assert browser.run("document.title") == "Study of chests"
    assert (
        browser.run("document.querySelectorAll('img:not([src^=\"data:image/png\"]), script:not(:last-child)').length")
        == 0
    )
    browser.run("document.querySelectorAll('button').forEach(button => button.click())")
    browser.run("document.querySelector('.plot').focus()")
    for _ in range(4):
        browser.press("ArrowRight")
    assert browser.run("document.title") == "Study of chests"
    assert browser.run("document.querySelectorAll('.tip img, .said img').length") == 0
    assert browser.requests() == [address for address in browser.requests() if address.startswith("data:")]


def test_the_policy_stops_whatever_is_not_the_script_of_the_page(browser, written, tmp_path):
    path = tmp_path / "report.html"
    foreign = f"<script>document.title='owned'</script>{IMAGE}<a href=\"javascript:document.title='owned'\" id=x>x</a>"
    path.write_text(written.read_text(encoding="utf-8").replace("</main>", f"{foreign}</main>"), encoding="utf-8")
    browser.open(path)
    browser.run("document.querySelector('#x').click()")
    assert browser.run("document.title") == "Study of chests"
    assert browser.run("document.documentElement.className") == "js"


def test_the_button_in_the_head_of_a_column_sorts_by_its_numbers(browser, written):
    browser.open(written)
    press = "document.querySelectorAll('#closeup ~ .scroll thead button')[%d].click()"
    state = "[...document.querySelector('#closeup ~ .scroll').querySelectorAll('th[scope=col]')].map(th => th.ariaSort)"
    browser.run(press % 1)
    assert browser.run(SORTED % 1) == ["9", "70", "410"]
    assert browser.run(state) == [None, "ascending", None, None]
    browser.run(press % 1)
    assert browser.run(SORTED % 1) == ["410", "70", "9"]
    browser.run(press % 0)
    assert browser.run(SORTED % 0) == ["effusion", "healthy", "pneumonia"]
    assert browser.run(state) == ["ascending", None, None, None]


def test_cells_without_a_number_stay_last_whichever_way_a_table_is_sorted(browser, written):
    browser.open(written)
    for _ in range(2):
        browser.run("document.querySelectorAll('#closeup ~ .scroll thead button')[3].click()")
        assert browser.run(SORTED % 3)[-1] == "–"


def test_arrow_keys_move_over_the_map_and_tell_each_image(browser, written):
    browser.open(written)
    browser.run("document.querySelector('.plot').focus()")
    told = []
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp"):
        browser.press(key)
        told.append(browser.run("document.querySelector('.said').textContent"))
    # Nine images on a line from left to right; the first key goes to the one in the middle.
    expected = [4, 5, 6, 5, 5]
    names = ["healthy", "pneumonia", "effusion"]
    assert told == [f"{names[i % 3]}, test/{i:04d}.png" for i in expected]
    assert browser.run("document.querySelector('.tip').hidden") is False
    assert (
        browser.run("document.querySelector('.tile').style.backgroundPosition")
        == f"{-96 * (5 % 4)}px {-96 * (5 // 4)}px"
    )
    browser.press("Escape")
    assert browser.run("document.querySelector('.tip').hidden") is True


def test_the_map_shows_the_image_next_to_the_pointer_and_none_far_from_all(browser, written):
    browser.open(written)
    browser.run("document.querySelector('.plot').scrollIntoView()")
    place = "(() => { const box = document.querySelectorAll('.map-1 use')[%d].getBoundingClientRect();"
    x, y = browser.run(place % 7 + "return [box.x + box.width / 2, box.y + box.height / 2] })()")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 3, y=y)
    assert browser.run("document.querySelector('.tip').textContent") == "pneumonia\ntest/0007.png"
    assert browser.run("document.querySelector('.tip').hidden") is False
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y + 150)
    assert browser.run("document.querySelector('.tip').hidden") is True


def test_the_other_projection_and_axis_are_chosen_without_a_script(browser, written):
    browser.open(written, scripts=False)
    shown = (
        "[...document.querySelectorAll('.map, .training .panels figure:first-child > div')]"
        ".filter(each => each.getBoundingClientRect().width > 0).map(each => each.getAttribute('class'))"
    )

    def choose(name):
        browser.run(f"document.querySelector('#{name}').checked = true")

    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run("document.documentElement.className") == ""
    assert browser.run(shown) == ["map map-1", "by-epoch"]
    choose("projection-2")
    choose("axis-passes")
    assert browser.run(shown) == ["map map-2", "by-passes"]
    choose("axis-time")
    assert browser.run(shown) == ["map map-2", "by-time"]


def test_without_a_script_every_mark_still_has_its_title_and_no_button_is_dead(browser, written):
    browser.open(written, scripts=False)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run("document.querySelectorAll('.map use > title').length") == 18
    assert browser.run("document.querySelectorAll('button').length") == 0
    assert browser.run("document.querySelector('.plot').tabIndex") == -1


def test_an_entry_of_the_key_lights_its_class_up_until_pressed_again(browser, written):
    browser.open(written)
    lit = "[...document.querySelectorAll('.map-1 use.lit')].map(use => use.dataset.code)"
    browser.run("document.querySelectorAll('.classes button')[1].click()")
    assert browser.run(lit) == ["1"] * 3
    assert browser.run("document.querySelectorAll('.classes button')[1].ariaPressed") == "true"
    browser.run("document.querySelectorAll('.classes button')[1].click()")
    assert browser.run(lit) == []


def test_every_control_and_every_table_is_reached_by_the_tab_key(browser, written):
    browser.open(written)
    browser.run("window.seen = []; document.addEventListener('focusin', event => seen.push(event.target))")
    for _ in range(60):
        browser.press("Tab")
    assert (
        browser.run(
            "[...document.querySelectorAll('a, summary, .scroll, .plot, button, input:checked')]"
            ".filter(each => !seen.includes(each)).map(each => each.outerHTML.slice(0, 80))"
        )
        == []
    )
    assert browser.run("document.querySelectorAll('[tabindex]:not([tabindex=\"0\"])').length") == 0


def test_on_paper_there_are_no_controls_and_skipped_files_are_named(browser, written):
    browser.open(written, media="print", width=760)
    shown = "[...document.querySelectorAll('%s')].some(each => each.checkVisibility({contentVisibilityAuto: true}))"
    for hidden in ("nav", ".switch", ".tip", ".scripted", ".said"):
        assert browser.run(shown % hidden) is False, hidden
    assert browser.run("document.querySelector('details li').getBoundingClientRect().height") > 0
    assert browser.print_to_pdf().startswith(b"%PDF")


def test_a_page_with_a_thousand_thumbnails_stays_below_5_mb(full, tmp_path):
    # Noise is what an encoder of images can do least about.
    noise = np.random.default_rng(0).integers(0, 256, (25 * 48, 40 * 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "sheet.webp", quality=75)
    step = tuple(i / 999 for i in range(1000))
    atlas = replace(
        full.atlas,
        codes=tuple(i % 3 for i in range(1000)),
        names=tuple(f"folder/of/a/patient-{i:06d}/series-{i:06d}/image-{i:06d}.dcm" for i in range(1000)),
        projections=tuple(replace(each, x=step, y=step) for each in full.atlas.projections),
        sheet=replace(
            full.atlas.sheet, data=(tmp_path / "sheet.webp").read_bytes(), media="image/webp", width=1920, height=1200
        ),
        tile=48,
        columns=40,
    )
    write(replace(full, atlas=atlas), tmp_path / "report.html")
    assert (tmp_path / "sheet.webp").stat().st_size > 1e6
    assert (tmp_path / "report.html").stat().st_size < 5e6


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """The source of axe-core: the file that the variable AXE names, or else what npm fetches."""
    if "AXE" in os.environ:
        with open(os.environ["AXE"], encoding="utf-8") as file:
            return file.read()
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(["npm", "pack", "--silent", "axe-core@4"], cwd=folder, check=True, timeout=120)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


@pytest.mark.network
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, axe, written, scheme, width):
    browser.open(written, width=width, scheme=scheme)
    browser.run(f"{axe}; 0")
    found = browser.run(
        "axe.run().then(result => result.violations.map(each => [each.impact, each.id, each.nodes[0].html]))"
    )
    assert [each for each in found if each[0] in ("serious", "critical")] == []
