"""A study in which a policy was learned says what became of it, and leaves a policy that can be used elsewhere."""

import json
import re

import pytest

from kontrast.augment import policy_file
from kontrast.study.learned import START


@pytest.fixture(scope="module")
def done(tmp_path_factory, images, training, scoring):
    from kontrast.cli import main

    out = tmp_path_factory.mktemp("studies") / "learned"
    words = ["study", str(images), *training, *scoring, "--draws", "1", "--finetune-steps", "2", "--policy", "digits"]
    words += ["--methods", "simclr", "learned_views", "learned_views:mode=adversarial,policy=xray"]
    assert main([*words, "--learned-views.policy-lr", "0.3", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def html(done):
    return (done / "report.html").read_text()


@pytest.fixture(scope="module")
def told(done):
    return json.loads((done / "study.json").read_text())["learned"]


def test_each_arm_that_learned_its_policy_is_told_and_no_other(told, html):
    assert [one["key"] for one in told] == ["learned_views", "learned_views_mode_adversarial_policy_xray"]
    assert [[end["num_labels"] for end in one["operations"][0]["ends"]] for one in told] == [[4], [None]]
    assert '<h2 id="learned">What was learned</h2>' in html
    assert '<a href="#learned">' in html
    assert "In mode adversarial, the policy learns" in html


def test_the_start_of_an_arm_is_its_own_policy(told):
    starts = [{one["name"]: one["start"] for one in each["operations"]} for each in told]
    assert (starts[0]["area"], starts[0]["rotation"], starts[1]["area"], starts[1]["rotation"]) == (0.4, 15, 0.3, 10)
    assert "shear" in starts[0]
    assert "shear" not in starts[1]


def test_the_ends_are_those_of_the_policy_that_the_run_left_and_it_can_be_used(done, told):
    for each in told:
        left = policy_file.read(done / each["path"], size=16, channels=1)
        ends = {one["name"]: one["ends"][0]["value"] for one in each["operations"]}
        assert ends["rotation"] == pytest.approx(left.geometry.rotation)
        assert ends["area"] == pytest.approx(left.geometry.area[0])
        assert each["policy"] == (done / each["path"]).read_text()


def test_the_page_draws_every_operation_and_shows_views_before_and_after(html, told):
    section = re.search('<section aria-labelledby="learned".*?</section>', html, re.DOTALL)[0]
    drawn = re.findall(r'<svg role="img" aria-label="(\w+) by epoch\. .*?"', section)
    assert drawn == [one["name"] for each in told for one in each["operations"]]
    assert section.count(f"{START}: from") == len(drawn)
    assert section.count("view 1 at the start") == section.count("view 1 under the learned policy") > 0


def test_the_other_panels_of_the_training_stay_as_they_are(html):
    section = re.search('<section aria-labelledby="training".*?</section>', html, re.DOTALL)[0]
    assert "Loss of LearnedViews" in section
    assert "policy." not in section


def test_study_json_holds_neither_its_pictures_nor_its_courses(told):
    assert all({"views", "courses"}.isdisjoint(each) for each in told)
    assert all("courses" not in one for each in told for one in each["operations"])
