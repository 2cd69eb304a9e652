"""The items of a log or of a catalogue file, each with its last version. Not here: the versions in time (contracts.catalogue)."""

from __future__ import annotations

from pathlib import Path

from contracts.catalogue import Catalogue, CatalogueItem
from contracts.errors import UNREADABLE, BadInput
from contracts.log import MANIFEST as LOG_MANIFEST
from contracts.log import open_log
from contracts.log_files import read_rows
from contracts.log_rows import CatalogueRow, item_value
from model_export.applied import catalogue_of


def items_of(path: Path) -> dict[str, CatalogueItem]:
    """Return the last version of every item of a log, or of a catalogue file (.parquet, .jsonl), by id.

    Raises:
        BadInput: it is neither.
    """
    if (path / LOG_MANIFEST).is_file():
        catalogue = catalogue_of(open_log(path))
    elif path.suffix in {".parquet", ".jsonl"} and path.is_file():
        catalogue = Catalogue()
        rows = (row for rows in read_rows(path, CatalogueRow) for row in rows)
        for offset, row in enumerate(rows):
            value = row.raw if row.raw is not None else item_value(row)
            if value is not None:
                try:
                    catalogue.apply(offset, None, value)
                except UNREADABLE as error:
                    raise BadInput(f"{path}, row {offset + 1}: no catalogue item ({error}); correct it") from None
    else:
        raise BadInput(f"{path} is neither a log (a directory with {LOG_MANIFEST}) nor a catalogue (.parquet, .jsonl)")
    found = {item: catalogue.last(item) for item in catalogue}
    return {item: version for item, version in found.items() if version is not None}
