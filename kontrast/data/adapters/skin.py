"""Skin lesions."""

from __future__ import annotations

from pathlib import Path

from kontrast.data.adapters.layout import Row, first_file, listed, read_rows
from kontrast.data.folder import FileListing


def ham10000(folder: Path) -> FileListing:
    """HAM10000 (Tschandl et al., Scientific Data 2018): 10,015 dermoscopic images of 7,470 lesions in 7 classes.

        HAM10000_metadata.csv     lesion_id, image_id, dx and more (Harvard Dataverse gives it without .csv)
        */ISIC_0024306.jpg        in HAM10000_images_part_1 and _2, or any folders

    Label: `dx`. Group: the lesion, of which many have several images.
    """
    table = first_file(folder, ("HAM10000_metadata.csv", "HAM10000_metadata"), "the table of HAM10000")
    images = {path.stem: path for path in sorted(folder.rglob("ISIC_*.jpg"))}
    rows = [
        Row(
            path=images.get(row["image_id"], folder / f"{row['image_id']}.jpg"), label=row["dx"], group=row["lesion_id"]
        )
        for row in read_rows(table, "lesion_id", "image_id", "dx")
    ]
    return listed("ham10000", folder, rows, layout="HAM10000_metadata.csv and images ISIC_*.jpg")
