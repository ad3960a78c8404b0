"""What `--init pretrained` stands for: timm's own weights, or a sample's where its hub cannot be reached."""

from __future__ import annotations

import logging
import re
from functools import cache
from urllib.request import Request, urlopen

from kontrast.data import samples
from kontrast.nn.import_timm import import_timm

log = logging.getLogger("kontrast")

SAMPLE_OF = {"tf_efficientnet_lite0": "efficientnet-lite0"}
"""Architectures whose pre-trained weights are a sample as well, which needs a package index and no hub."""
_FILE = "model.safetensors"
_PATIENCE = 5
"""Seconds for an answer of the hub; its own client asks again for most of a minute."""


def weights_of(architecture: str, init: str) -> str:
    """The weights that `init` names, as `encoder` takes them; only `pretrained` may become the file of a sample.

    Raises:
        InputError: The hub cannot be reached, and the sample cannot be fetched either.
    """
    plain = architecture.partition(".")[0]
    return _pretrained(plain) if init == "pretrained" and plain in SAMPLE_OF else init


def called(architecture: str, init: str) -> str:
    """What the page calls the weights that `init` names."""
    timm = import_timm()
    known = init == "pretrained" and timm.is_model_pretrained(architecture)
    tag = timm.get_pretrained_cfg(architecture).tag if known else ""
    return "ImageNet weights" if re.search(r"in(1k|12k|21k|22k)", tag or "") else "Given weights"


@cache
def _pretrained(architecture: str) -> str:
    """Asked once a process, so that all encoders of a study begin with the same weights."""
    if _has_hub(architecture):
        log.info("pre-trained weights of %s: timm's own, of its hub", architecture)
        return "pretrained"
    name = SAMPLE_OF[architecture]
    (file,) = samples.files(name).values()
    log.info("pre-trained weights of %s: %s of sample %s, since timm's hub is out of reach", architecture, file, name)
    return str(file)


def _has_hub(architecture: str) -> bool:
    """Whether timm's weights are in the cache of the hub's client, or the hub answers when it is asked for them."""
    timm = import_timm()
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache

    repository = timm.get_pretrained_cfg(architecture).hf_hub_id
    if isinstance(try_to_load_from_cache(repository, _FILE), str):
        return True
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(Request(hf_hub_url(repository, _FILE), method="HEAD"), timeout=_PATIENCE):
            return True
    except OSError:
        return False
