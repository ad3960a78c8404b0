"""What a run has learned from: its own data, those of the run that it was initialised from, and so on."""

from __future__ import annotations

from pathlib import Path

import yaml

from kontrast.data import samples


def check_leaks(init: str | Path, data: str) -> None:
    """Refuses data that a run, or what it was initialised from, may have learned from under another name.

    Args:
        init: A run, or any other value of `--init`, which passes.
        data: What `config.yaml` calls the data.

    Raises:
        InputError: Both are samples of one origin.
    """
    for known in learned_from(init):
        samples.check_apart(known, data)


def learned_from(init: str | Path) -> list[str]:
    """The data, as `config.yaml` names them, of a run, of the run that it was initialised from, and so on.

    Args:
        init: Folder of a run or a file in it; of all else, such as weights and folders that have moved, nothing is
            known.
    """
    names, seen = [], set()
    file = _config(init)
    while file is not None and file not in seen:
        seen.add(file)
        settings = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        names.append(str(settings.get("data", "")))
        file = _config(settings.get("init") or "none")
    return names


def _config(init: str | Path) -> Path | None:
    """The settings of the run that `--init` names, by its folder or a file in it."""
    path = Path(init).expanduser()
    file = (path if path.is_dir() else path.parent) / "config.yaml"
    is_run = str(init) not in ("none", "pretrained") and path.exists() and file.is_file()
    return file.resolve() if is_run else None
