"""A page with everything on it, and a browser to look at pages with."""

import base64
import io
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kontrast.study.contents import (
    Atlas,
    ClassCount,
    ClassRow,
    ClassTable,
    Closeup,
    Column,
    Compared,
    Confusion,
    Course,
    Difference,
    Ending,
    Gallery,
    Hard,
    Learned,
    LearnedOperation,
    Neighbour,
    Page,
    Picture,
    Projection,
    Query,
    Reliability,
    Row,
    Samples,
    Saving,
)
from kontrast.study.findings import Truth, differences, score_rows
from kontrast.study.page import render
from kontrast.study.plan import Answers, Budget, arms

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CLASSES = ("healthy", "pneumonia", "effusion")
COLUMNS = (Column(title="SimCLR: recall"), Column(title="Difference of recalls", is_difference=True))
ARMS = (("simclr", "SimCLR", "method"), ("moco", "MoCo v2", "method"), ("scratch", "From scratch", "baseline"))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    value: float
    low: float
    high: float
    of_runs: float = 0.5
    scope: str = "over seeds, draws and test images"


def estimate(value, margin=0.0131):
    return Estimate(value=value, low=value - margin, high=value + margin)


def picture(seed=0, side=8, height=None):
    pixels = np.random.default_rng(seed).integers(0, 256, (height or side, side), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return Picture(data=stream.getvalue(), media="image/png", width=side, height=height or side)


@pytest.fixture(scope="session")
def full():
    """A page with every section on it."""
    return Page(
        title="Study of chests",
        verdict=("With 86 labels, pre-training helps: 81.0 % [79.7, 82.3].", "With 857 it does not."),
        recommendation="Use SimCLR, chosen on 40 validation images.",
        outlook="More draws would narrow the interval.",
        metric="accuracy",
        facts={"Images": "5,000", "Values": "0 to 255"},
        counts=tuple(ClassCount(name=name, labelled=300 + i, test=70 - i) for i, name in enumerate(CLASSES)),
        rows=tuple(_row(arm, labels, i, j) for j, labels in enumerate((86, 214, 857)) for i, arm in enumerate(ARMS)),
        differences=(_difference("scratch"), _difference("moco", 0.004, "no difference shown")),
        savings=(_saving(86, 340.4, 210.0, 800.0), _saving(214, math.inf, 500.0, math.inf)),
        closeup=_closeup(),
        atlas=atlas(),
        queries=(_query(),),
        gallery=Gallery(note="Policy chest.", rows=((picture(1), picture(2), picture(3)),), names=("a/train.png",)),
        learned=(learned(),),
        samples=(Samples(title="EBCLR", note="Seed 0.", sheets=((1, picture(40)), (30, picture(41)))),),
        curves={f"{arm}-seed-{seed}": _curve() for arm in ("simclr", "moco") for seed in range(2)},
        health=("No run looked collapsed.",),
        notes=("One hospital only.",),
        skipped=(("broken.png", "unreadable"),),
        settings="seeds: 2\n",
        versions={"torch": "2.13.0"},
        cost={"Hardware": "2 cores", "Encoder passes": "1,234,567"},
        command="kontrast study chests/",
        repeat="kontrast study --from study/",
    )


def atlas(num_images=9, classes=CLASSES, tile=8, columns=4):
    step = [i / max(1, num_images - 1) for i in range(num_images)]
    return Atlas(
        title="SimCLR, seed 0",
        note=f"{num_images} of 10,000 test images, each class in proportion.",
        projections=(
            Projection(title="PCA", note="It keeps 31 % of the variance.", x=tuple(step), y=(0.5,) * num_images),
            Projection(title="UMAP", note="Distances mean little.", x=(0.5,) * num_images, y=tuple(step)),
        ),
        classes=classes,
        codes=tuple(i % len(classes) for i in range(num_images)),
        names=tuple(f"test/{i:04d}.png" for i in range(num_images)),
        sheet=picture(5, columns * tile, tile * math.ceil(num_images / columns)),
        tile=tile,
        columns=columns,
    )


def learned():
    return Learned(
        title="LearnedViews",
        key="learned_views",
        note="In mode semi, the policy learns.",
        findings=("With 86 labels, in both runs: area became stronger.", "With 214 labels, the policy never moved."),
        operations=(
            _operation("area", "share of the image area, smallest", 1.0, 0.4, -0.1),
            _operation("rotation", "degrees, largest to either side", 0.0, 15.0, 7.46),
        ),
        run="86 labels, seed 0",
        views=(
            Compared(
                name="a/learned.png",
                original=picture(30),
                before=(picture(31), picture(32)),
                after=(picture(33), picture(34)),
            ),
        ),
        policy="size: 28\narea: [0.3, 1.0]\n",
        path="runs/learned_views/seed-0-labels-86-0badcafe/policy.yaml",
    )


def _operation(name, what, nothing, start, step):
    """Moved by a step with 86 labels, by 1.1 of it in the second run, and not at all with 214."""
    moved = (start + step, start + 1.1 * step)
    ends = (
        Ending(num_labels=86, num_runs=2, value=start + 1.05 * step, low=min(moved), high=max(moved)),
        Ending(num_labels=214, num_runs=1, value=start, low=start, high=start),
    )
    moves = ((86, 0, step), (86, 1, 1.1 * step), (214, 0, 0.0))
    courses = tuple(
        Course(
            title=f"{labels} labels, seed {seed}",
            num_labels=labels,
            epochs=(0.0, 1.0, 2.0),
            values=(start, start + move / 2, start + move),
        )
        for labels, seed, move in moves
    )
    return LearnedOperation(name=name, what=what, nothing=nothing, start=start, ends=ends, courses=courses)


def _row(arm, labels, i, j):
    key, title, kind = arm
    scores = {"accuracy": estimate(0.7 + j / 10 - i / 50), "auroc": estimate(0.8 + j / 20 - i / 50, 0.004)}
    return Row(
        arm=key,
        title=title,
        kind=kind,
        fraction=labels / 4286,
        num_labels=labels,
        scores=scores,
        validation=0.8764,
        num_seeds=2,
        num_draws=5,
    )


def _difference(baseline, value=0.0664, finding="helps"):
    return Difference(
        arm="simclr",
        title="SimCLR",
        baseline=baseline,
        num_labels=86,
        metric="accuracy",
        estimate=estimate(value, 0.01),
        finding=finding,
    )


def _saving(labels, value, low, high):
    return Saving(arm="simclr", title="SimCLR", num_labels=labels, value=value, low=low, high=high, fewest=86, most=857)


def _closeup():
    rows = tuple(
        ClassRow(name=name, num_test=(70, 9, 410)[i], scores=(estimate(0.9 - i / 10), (None, estimate(-0.021))[i > 0]))
        for i, name in enumerate(CLASSES)
    )
    return Closeup(
        title="SimCLR",
        num_labels=86,
        classes=ClassTable(
            columns=COLUMNS,
            rows=rows,
        ),
        confusion=Confusion(classes=CLASSES, shares=((0.9, 0.096, 0.004), (0.25, 0.75, 0.0), (math.nan,) * 3)),
        reliability=(
            _reliability("SimCLR", "method", 0.0312),
            _reliability("From scratch", "baseline", 0.1249),
        ),
        hardest=tuple(
            Hard(
                picture=picture(10 + i),
                name=f"patients/{i}/hard.png",
                truth="effusion",
                predicted="healthy",
                probability=0.021,
                share_wrong=0.9,
            )
            for i in range(3)
        ),
    )


def _reliability(title, kind, ece):
    return Reliability(
        title=title, kind=kind, confidence=(0.55, 0.95), accuracy=(0.5, 0.91), count=(120, 1000), ece=ece
    )


def _query():
    near = tuple(
        Neighbour(
            picture=picture(20 + i),
            name=f"train/{i}.png",
            label=CLASSES[i // 2],
            part="train",
            similarity=0.98 - i / 10,
        )
        for i in range(3)
    )
    return Query(picture=picture(4), name="test/query.png", label="healthy", neighbours=near)


def _curve(num_epochs=6):
    return [
        {"epoch": float(i), "loss": 5 / i, "spread": 0.9, "knn_accuracy": 0.5 + i / 100}
        | {"passes": i * 1000.0, "seconds": 60.0}
        for i in range(1, num_epochs + 1)
    ]


# Chromium reads from descriptor 3 and writes to 4, whatever numbers the pipes have here.
LAUNCH = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
os.dup2(pipes[0], 3)
os.dup2(pipes[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One tab of Chromium, driven through the pipe of its DevTools protocol, so that nothing has to be installed."""

    def __init__(self, profile):
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        options += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
        options += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
        theirs, self._write = os.pipe()
        self._read, ours = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(theirs), str(ours), CHROMIUM, *options, "about:blank"],
            pass_fds=(theirs, ours),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        self._unread, self._calls, self._session = b"", 0, {}
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": parameters} | self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._calls:
            self.events.append(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def open(self, path, *, width=1280, scheme="light", media="", scripts=True):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in [event.get("method") for event in self.events]:
            self.events.append(self._next())

    def run(self, script):
        """The value of an expression, or of the promise that it is."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def print_to_pdf(self):
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])

    def requests(self):
        """Addresses that the page asked for, itself left out."""
        asked = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return asked[1:]

    def close(self):
        self._session = {}
        self.call("Browser.close")
        self._process.wait(timeout=30)
        os.close(self._write)
        os.close(self._read)

    def _next(self):
        while b"\0" not in self._unread:
            more = os.read(self._read, 1 << 20)
            assert more, "chromium has closed"
            self._unread += more
        message, self._unread = self._unread.split(b"\0", 1)
        return json.loads(message)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def full_html(full):
    return render(full)


TEST = np.arange(200) % 2
VALIDATION = np.arange(50) % 2
TRUTH = Truth(test=TEST, test_groups=None, validation=VALIDATION)
FEW, MANY = Budget(fraction=0.1), Budget(fraction=1.0)
ALL_ARMS = arms({"simclr": "SimCLR", "byol": "BYOL"}, ("linear",))


def probabilities(labels, accuracy, seed):
    """Right for that share of the images, which ones by lot."""
    rng = np.random.default_rng(seed)
    right = np.zeros(len(labels), bool)
    right[rng.permutation(len(labels))[: round(accuracy * len(labels))]] = True
    found = np.where(right, labels, 1 - labels)
    return np.eye(2, dtype=np.float32)[found] * 0.8 + 0.1


def answers(scores, *, budgets=(FEW,), seeds=2, num_draws=2, validation=True):
    """Answers of every arm, from `{key: (test accuracy, validation accuracy)}`."""
    cells = {}
    for at, budget in enumerate(budgets):
        for number, (key, (test, held)) in enumerate(scores.items()):
            cells[key, budget] = [
                [
                    Answers(
                        test=probabilities(TEST, test, [seed, draw, number, at]),
                        validation=probabilities(VALIDATION if validation else TEST[:0], held, [seed, draw]),
                        labelled=np.arange(20 if budget == FEW else 180),
                    )
                    for draw in range(num_draws)
                ]
                for seed in range(seeds)
            ]
    return cells


def study(scores, *, budgets=(FEW,), validation=True, **how):
    """Those answers, the rows and the differences."""
    cells = answers(scores, budgets=budgets, validation=validation, **how)
    truth = TRUTH if validation else Truth(test=TEST, test_groups=None, validation=TEST[:0])
    rows = score_rows(cells, ALL_ARMS, budgets, truth, "accuracy")
    return cells, rows, differences(cells, ALL_ARMS, budgets, truth, "accuracy")


def scores(simclr, byol, scratch, untrained=(0.5, 0.5)):
    return {"simclr-linear": simclr, "byol-linear": byol, "scratch": scratch, "untrained-linear": untrained}


@pytest.fixture(scope="session")
def made_up():
    """Makes studies whose accuracies are given."""
    return SimpleNamespace(answers=answers, study=study, scores=scores)
