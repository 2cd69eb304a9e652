"""An artifact is replaced by a proved one in one go, or stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import BadArtifact, BadInput
from model_export.replacing import replacing


def written(directory: Path, content: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("manifest.json", "items.npy"):
        (directory / name).write_text(content)
    return directory


def held(directory: Path) -> set[str]:
    return {file.read_text() for file in directory.iterdir()}


@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "an artifact there"])
def test_what_is_there_stays_until_the_new_one_is_whole_and_then_is_gone(tmp_path, there):
    place = tmp_path / "models" / "artifact"
    if there:
        written(place, "old")
    with replacing(place) as draft:
        assert draft.parent.parent == place.parent, "on the same disk, or it could not be renamed"
        written(draft, "new")
        assert place.exists() == there
        assert not there or held(place) == {"old"}
    assert held(place) == {"new"}
    assert list(place.parent.iterdir()) == [place]


def test_what_is_not_proved_takes_no_place_and_leaves_nothing(tmp_path):
    place = written(tmp_path / "artifact", "old")
    with pytest.raises(BadArtifact), replacing(place) as draft:
        written(draft, "new")
        raise BadArtifact("not one model")
    assert held(place) == {"old"}
    assert list(tmp_path.iterdir()) == [place]


def test_an_empty_directory_is_replaced(tmp_path):
    (tmp_path / "artifact").mkdir()
    with replacing(tmp_path / "artifact") as draft:
        written(draft, "new")
    assert held(tmp_path / "artifact") == {"new"}


def test_of_a_link_what_it_leads_to_is_replaced(tmp_path):
    place, link = written(tmp_path / "artifact", "old"), tmp_path / "current"
    link.symlink_to(place)
    with replacing(link) as draft:
        written(draft, "new")
    assert link.readlink() == place
    assert held(place) == {"new"}


def test_a_directory_with_anything_else_in_it_is_not_replaced(tmp_path):
    written(tmp_path, "old")
    (tmp_path / "thesis.tex").write_text("the work of years")
    with pytest.raises(BadInput, match=r"holds more than an artifact \(thesis\.tex\)"), replacing(tmp_path):
        pytest.fail("it went on")
    with pytest.raises(BadInput, match="is a file"), replacing(tmp_path / "thesis.tex"):
        pytest.fail("it went on")
    assert (tmp_path / "thesis.tex").exists()


def test_where_the_new_one_cannot_be_moved_the_old_one_is_back(tmp_path):
    place = written(tmp_path / "artifact", "old")
    with pytest.raises(BadInput, match=r"cannot be replaced .*: name another directory"), replacing(place):
        pass  # nothing was written, so there is nothing to move
    assert held(place) == {"old"}
