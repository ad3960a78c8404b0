"""What a page says: plain data, made by `findings` and `exhibits`, rendered by `page`, and known by neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

METRICS = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "macro_f1": "Macro-F1", "auroc": "AUROC"}
"""Names of metrics in the reader's words; any other is shown by its own name."""

Curve: TypeAlias = Sequence[Mapping[str, float]]
"""The rows of one run's `metrics.jsonl`."""


class Score(Protocol):
    """A number with a 95 % interval: what `kontrast.evaluate.intervals.Estimate` has."""

    @property
    def value(self) -> float:
        """A share in 0..1; a difference of two in -1..1."""

    @property
    def low(self) -> float:
        """Lower end."""

    @property
    def high(self) -> float:
        """Upper end."""

    @property
    def of_runs(self) -> float:
        """Share of its variance that is that of seeds and draws, 0..1; the rest is that of the test images."""

    @property
    def scope(self) -> str:
        """What the interval covers: over seeds, draws and test images, or for one encoder."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm at one number of labels."""

    arm: str
    """Its key: what runs are named by."""

    title: str
    kind: Literal["method", "baseline"]
    fraction: float | None
    num_labels: int
    scores: Mapping[str, Score]
    validation: float | None
    """The main metric on the validation part of the labelled data: what the recommendation is chosen by."""

    num_seeds: int
    num_draws: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An arm minus another, on the same draws and the same test images."""

    arm: str
    title: str
    baseline: str
    num_labels: int
    metric: str
    estimate: Score
    finding: str
    """Of a method over from scratch `helps` or `hurts`, of all others `higher` or `lower`; or `no difference shown`."""


@dataclass(frozen=True, kw_only=True)
class Saving:
    """With how many labels the arm from scratch scores as high as another arm does with fewer."""

    arm: str
    title: str
    num_labels: int
    """What the arm has."""

    value: float
    """Labels that from scratch needs, interpolated on the log axis. 0: it scores as high or higher with the fewest
    compared; infinity: it scores lower with the most compared."""

    low: float
    """Lower end of the 95 % interval; 0 where even the fewest labels compared may do."""

    high: float
    """Upper end; infinity where even the most labels compared may not do."""

    fewest: int
    """The fewest labels that from scratch was tried with: below them nothing is known."""

    most: int


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """How one class fares."""

    name: str
    num_test: int
    """Test images of it."""

    scores: tuple[Score | None, ...]
    """In the order of `ClassTable.columns`; None where the data do not define a score."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table of classes."""

    title: str
    """Such as "SimCLR, linear probe: recall"."""

    is_difference: bool = False
    """Whether its numbers are differences of two shares, in -1..1, and not shares."""


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """Scores class by class."""

    columns: tuple[Column, ...]

    rows: tuple[ClassRow, ...]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Which class is taken for which; single-label data only."""

    classes: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]
    """Row: true class; column: predicted class; the mean over cells of the share of the row's images, 0..1. NaN in the
    row of a class without test images."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Whether predicted probabilities mean what they say, bin by bin."""

    title: str
    kind: Literal["method", "baseline"]
    confidence: tuple[float, ...]
    """Mean predicted probability in each bin that holds any image, 0..1."""

    accuracy: tuple[float, ...]
    """Share of those that were right."""

    count: tuple[int, ...]
    ece: float
    """Expected calibration error, 0..1; the mean gap, weighted by count."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A small image, encoded for the page."""

    data: bytes
    media: str
    """Such as "image/webp"."""

    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Hard:
    """A test image that most cells get wrong."""

    picture: Picture | None
    name: str
    truth: str
    predicted: str
    """What most cells say."""

    probability: float
    """Mean predicted probability of the truth over cells, 0..1."""

    share_wrong: float
    """Of the cells."""


@dataclass(frozen=True, kw_only=True)
class Closeup:
    """A closer look at one arm with one number of labels, beside the arm from scratch."""

    title: str
    num_labels: int
    classes: ClassTable
    confusion: Confusion | None
    reliability: tuple[Reliability, ...]
    """Of the arm and of from scratch."""

    hardest: tuple[Hard, ...]


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Places of the images of an atlas in the plane."""

    title: str
    """"PCA" or "UMAP"."""

    note: str
    """What it keeps, in a sentence."""

    x: tuple[float, ...]
    """0..1"""

    y: tuple[float, ...]
    """0..1, upwards."""


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """A map of test images by their representations, each with a thumbnail."""

    title: str
    """Whose representations, such as "SimCLR, seed 0"."""

    note: str
    """How many images of how many are shown, how they were chosen, and how pure neighbourhoods are, in sentences."""

    projections: tuple[Projection, ...]
    classes: tuple[str, ...]
    codes: tuple[int, ...]
    """For each image its class; -1 for none (multi-label data)."""

    names: tuple[str, ...]
    sheet: Picture | None
    """All thumbnails, row by row, in the order of the images."""

    tile: int
    """Side of a thumbnail on the sheet, in pixels."""

    columns: int
    """Thumbnails in a row of the sheet."""


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """An image near a query."""

    picture: Picture
    name: str
    label: str | None
    """None where it has none."""

    part: Literal["train", "test"]
    similarity: float
    """Cosine of the representations, -1..1."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """A test image and its nearest neighbours among training and test images, the nearest first."""

    picture: Picture
    name: str
    label: str
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """What the augmentation does to a few training images."""

    note: str
    """The policy, and the size of what the encoder sees."""

    rows: tuple[tuple[Picture, ...], ...]
    """Each image, then its views."""

    names: tuple[str, ...]
    """Of the images."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Where the runs with one number of labels left an operation, in its unit."""

    num_labels: int | None
    """None where the method reads no labels."""

    num_runs: int
    value: float
    """The mean over these runs."""

    low: float
    """The smallest of them."""

    high: float
    """The largest."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """An operation in one run, in its unit."""

    title: str
    """Such as "48 labels, seed 0"."""

    num_labels: int | None
    epochs: tuple[float, ...]
    """0 for the start, then every epoch."""

    values: tuple[float, ...]
    """At the start, then the mean over each epoch."""


@dataclass(frozen=True, kw_only=True)
class LearnedOperation:
    """One operation of an augmentation policy that was learned; of a range, the end that moves."""

    name: str
    """As `--policy` files have it."""

    what: str
    """With its unit, such as "degrees, largest to either side"."""

    nothing: float
    """The value at which it does nothing."""

    start: float
    ends: tuple[Ending, ...]
    """One for each number of labels, the fewest first."""

    courses: tuple[Course, ...]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A training image and views of it under two policies, each pair of views from the same draw."""

    name: str
    original: Picture
    before: tuple[Picture, ...]
    after: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What an arm made of its augmentation policy."""

    title: str
    key: str
    """Names its runs."""

    note: str
    """What its policy aims at, and when, in sentences."""

    findings: tuple[str, ...]
    """For each number of labels, what became stronger and what weaker, in sentences."""

    operations: tuple[LearnedOperation, ...]
    """At least one."""

    run: str
    """Whose policy is shown as an example: "48 labels, seed 0"."""

    views: tuple[Compared, ...]
    """Under the policy of the start and under that of the example."""

    policy: str
    """The example as YAML."""

    path: str
    """Of its file, from the folder of the study."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What an arm, being a model of images, makes of images itself."""

    title: str
    note: str
    """What is shown, in sentences."""

    sheets: tuple[tuple[int, Picture], ...]
    """Epochs, in order, each with many samples on one picture; at least one."""


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """How many images a class has on each side."""

    name: str
    labelled: int
    """Training images with this label."""

    test: int


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the page says."""

    title: str
    verdict: tuple[str, ...]
    """Sentences, the headline first."""

    recommendation: str
    outlook: str = ""
    """What would change the verdict: more labels, more draws, more seeds."""

    metric: str
    """The main one: shown first, and drawn."""

    facts: Mapping[str, str]
    """What the data are."""

    counts: tuple[ClassCount, ...] = ()
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    """Each method and baseline minus from scratch, then each method minus what else it must beat."""

    savings: tuple[Saving, ...] = ()
    closeup: Closeup | None = None
    atlas: Atlas | None = None
    queries: tuple[Query, ...] = ()
    gallery: Gallery | None = None
    learned: tuple[Learned, ...] = ()
    """One an arm that learned its augmentation policy."""

    samples: tuple[Samples, ...] = ()
    """One an arm that draws samples."""

    curves: Mapping[str, Curve]
    """By name of the run. It belongs to the arm whose key, or else the first part of it, the name holds as a word:
    `simclr-seed-0` to the arm `simclr`, or to `simclr-linear` and `simclr-finetune` together. A row may hold `epoch`,
    `passes` (images that went through an encoder since the start) and `seconds` (of its own epoch)."""

    health: tuple[str, ...]
    notes: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    """Files that were not read, each with the reason."""

    settings: str
    versions: Mapping[str, str]
    cost: Mapping[str, str] = field(default_factory=dict)
    """Hardware, wall clock, encoder passes."""

    command: str
    repeat: str = ""
    """What to type to repeat the study from its folder."""


def without_pictures(page: Page) -> Page:
    """The page with no image on it, for data whose images must not leave their folder."""
    near = page.closeup and replace(page.closeup, hardest=tuple(replace(h, picture=None) for h in page.closeup.hardest))
    far = page.atlas and replace(page.atlas, sheet=None)
    learned = tuple(replace(each, views=()) for each in page.learned)
    notes = (*page.notes, "Images are left out of this page, as was asked for.")
    return replace(page, closeup=near, atlas=far, queries=(), gallery=None, learned=learned, samples=(), notes=notes)
