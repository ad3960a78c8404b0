"""The library in a few lines: an encoder learns from images alone, then ever fewer labels are enough for a probe."""

from kontrast import Fit, Loader, SimCLR, data, encoder, features, fit, linear_probe
from kontrast.augment import policies
from kontrast.data import draw, hold_out
from kontrast.evaluate.metrics import METRICS

images = data.open("sample:digits-5k").take(range(0, 5000, 4))
train, test = (images.take(part) for part in hold_out(images))

method = SimCLR(encoder("resnet10t", channels=1, size=28, stem="standard"), policies.digits(28))
fit(method, Loader(train, 128), Fit(epochs=2))
known, asked = features(method.encoder, train), features(method.encoder, test)

for per_class in (4, 16, 64):
    chosen = draw(train.labels, per_class=per_class, seed=0)
    probe = linear_probe(known[chosen], train.labels[chosen], asked, num_classes=10)
    accuracy = METRICS["accuracy"](test.labels, probe.probabilities)
    print(f"{10 * per_class:4d} labels: {100 * accuracy:.1f} % of {len(test)} test digits (one encoder, one draw)")
