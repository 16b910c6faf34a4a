"""Catalogues: from the nearest file, the environment or a program; folders where there is none; errors that list."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path

import pytest

from shardfit.errors import InvalidArgumentError, UnknownNameError
from shardfit.registry import Registry
from shardfit.stores.local import LocalStore
from shardfit_stages import hooks
from shardfit_stages.catalogue import Catalogue, StageTarget
from shardfit_stages.openers import use_catalogue

CANARY = "hunter2canary"


def written(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shardfit.toml").write_text(text)
    return folder


def test_without_a_catalogue_names_are_folders_below_the_user_stage(tmp_path: Path) -> None:
    environ = {"SHARDFIT_STAGE_ROOT": os.fspath(tmp_path / "mine")}
    catalogue = Catalogue.load(environ, tmp_path)
    assert catalogue.locate("@~").url == os.fspath(tmp_path / "mine")
    assert catalogue.locate("db.schema.stage").url == os.fspath(tmp_path / "mine/.named/DB/SCHEMA/STAGE")
    assert catalogue.locate('@"my db".X."y"/train').url == os.fspath(
        tmp_path / "mine" / ".named" / "MY%20DB~1B" / "X" / "Y~1" / "train"
    )


def test_stages_with_names_are_not_in_the_listing_of_the_user_stage(tmp_path: Path) -> None:
    catalogue = Catalogue.load({"SHARDFIT_STAGE_ROOT": os.fspath(tmp_path)}, tmp_path)
    LocalStore(Path(catalogue.locate("A.B.C").url)).put("model/1", {"a": b"1"})
    assert list(LocalStore(tmp_path).list()) == []


def test_the_nearest_file_upwards_says_where_stages_are(tmp_path: Path) -> None:
    text = """
[stages]
"DB.SCHEMA.MODELS" = "s3://bucket/models"
"db.schema.folder" = "data/stage"

[stages.'DB."x".RAW']
url = "gs://bucket/raw"
options = { region = "eu-west-1", secret_access_key = "${SECRET}" }
"""
    written(tmp_path, '[stages]\n"A.B.C" = "s3://another/file"')
    inner = written(tmp_path / "project", text) / "deep" / "er"
    inner.mkdir(parents=True)
    environ = {"SECRET": CANARY}
    catalogue = Catalogue.load(environ, inner)
    assert catalogue.locate("@DB.SCHEMA.MODELS/a/b") == StageTarget("s3://bucket/models/a/b")
    assert catalogue.locate("DB.SCHEMA.FOLDER").url == os.fspath(tmp_path / "project" / "data/stage")
    assert catalogue.locate('DB."x".RAW').options == {"region": "eu-west-1", "secret_access_key": CANARY}
    assert catalogue.options_for("gs://bucket/raw/train/a.parquet") == catalogue.locate('DB."x".RAW').options
    assert catalogue.options_for("gs://bucket/rawer") is None
    assert CANARY not in repr(catalogue)


def test_the_environment_goes_before_the_file_and_can_name_another(tmp_path: Path) -> None:
    written(tmp_path, '[stages]\n"A.B.C" = "s3://file/c"\n"A.B.D" = "s3://file/d"')
    other = written(tmp_path / "other", '[stages]\n"A.B.C" = "s3://other/c"') / "shardfit.toml"
    listed = json.dumps({"a.b.c": {"url": "s3://environment/c", "options": {"region": "x"}}})
    catalogue = Catalogue.load({"SHARDFIT_STAGES": listed}, tmp_path)
    assert [catalogue.locate(name).url for name in ("A.B.C", "A.B.D")] == ["s3://environment/c", "s3://file/d"]
    named = Catalogue.load({"SHARDFIT_CATALOGUE": os.fspath(other)}, tmp_path)
    assert named.locate("A.B.C").url == "s3://other/c"


def test_an_unknown_stage_is_an_error_that_lists_what_exists(tmp_path: Path) -> None:
    catalogue = Catalogue({"DB.SCHEMA.MODELS": "s3://bucket/models", 'DB."x".RAW': "s3://bucket/raw"})
    with pytest.raises(UnknownNameError) as caught:
        catalogue.locate("@DB.SCHEMA.MODEL/train")
    for part in ("DB.SCHEMA.MODEL:", "Did you mean DB.SCHEMA.MODELS?", 'DB."x".RAW'):
        assert part in str(caught.value)
    with pytest.raises(UnknownNameError, match="@~"):
        catalogue.locate("@~")


def test_a_variable_that_is_not_set_harms_no_other_stage(tmp_path: Path) -> None:
    text = '[stages]\n"A.B.C" = { url = "s3://bucket", options = { secret = "${NOT_THERE}" } }\n"A.B.D" = "s3://d"'
    catalogue = Catalogue.load({}, written(tmp_path, text))
    assert catalogue.locate("A.B.D").url == "s3://d"
    for use in (lambda: catalogue.locate("A.B.C"), lambda: catalogue.options_for("s3://bucket/x")):
        with pytest.raises(InvalidArgumentError, match="'NOT_THERE' is not set"):
            use()


def test_a_root_holds_the_stages_that_are_not_listed(tmp_path: Path) -> None:
    written(tmp_path, '[stages]\nroot = "stages"\n"A.B.C" = "s3://bucket/c"')
    catalogue = Catalogue.load({}, tmp_path)
    assert catalogue.locate("A.B.C").url == "s3://bucket/c"
    assert catalogue.locate("A.B.D").url == os.fspath(tmp_path / "stages/A/B/D")


@pytest.mark.parametrize(
    "text",
    [
        f'[stages]\n"A.B.C" = "s3://u:{CANARY}@b',
        'stages = "s3://bucket"',
        '[stages]\n"A.B.C" = 3',
        '[stages]\n"A.B" = "s3://bucket"',
        '[stages]\n"A.B.C" = { url = "s3://bucket", option = {} }',
        '[stages]\n"A.B.C" = { url = "s3://bucket", options = 3 }',
        '[stages]\nroot = "s3://bucket"',
        '[stages]\n"A.B.C" = "s3://a"\n"a.b.c" = "s3://b"',
    ],
)
def test_a_catalogue_that_cannot_be_read_is_refused_without_its_secrets(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Catalogue.load({}, written(tmp_path, text))
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("value", ["no json", "[]", f'{{"A.B.C": "s3://{CANARY}'])
def test_a_variable_that_is_no_table_is_refused_without_its_value(value: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="SHARDFIT_STAGES") as caught:
        Catalogue.load({"SHARDFIT_STAGES": value}, tmp_path)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_program_has_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written(tmp_path, '[stages]\n"A.B.C" = "elsewhere"'))
    monkeypatch.delenv("SHARDFIT_STAGES", raising=False)
    registry = Registry()
    registry.register(hooks, "stages")
    assert registry.open_store("a.b.c") == LocalStore(tmp_path / "elsewhere")
    use_catalogue(registry, Catalogue({"A.B.C": tmp_path / "mine"}))
    assert registry.open_store("a.b.c") == LocalStore(tmp_path / "mine")
    assert registry.open_store("@A.B.C/below") == LocalStore(tmp_path / "mine" / "below")
    with pytest.raises(UnknownNameError, match=r"There is: A\.B\.C\."):
        registry.open_store("A.B.X")
    fresh = Registry()
    use_catalogue(fresh, Catalogue({"A.B.C": tmp_path / "mine"}))
    assert fresh.open_store("A.B.C") == LocalStore(tmp_path / "mine")
