"""Names of stages: whatever they are, they are read back, lie inside the root, and no two share a folder."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.errors import InvalidArgumentError
from shardfit.names import is_stage_name
from shardfit_stages.names import StageLocation, StageName, parse_location, parse_name

plain_parts = st.from_regex(r"[A-Za-z_][A-Za-z0-9_$]{0,20}", fullmatch=True)
any_text = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1, max_size=20)
parts = st.one_of(plain_parts, any_text, st.sampled_from(["..", "/", "~", "con", 'a"b', "ß", "SS", "a", "A", "%41"]))
names = st.builds(StageName, parts, parts, parts)
paths = st.lists(st.from_regex(r"[A-Za-z0-9_=. -]{1,8}", fullmatch=True), max_size=4).map("/".join)


def readable(path: str) -> bool:
    return all(part not in {"", ".", ".."} for part in path.split("/")) if path else True


@given(names, paths.filter(readable))
def test_a_name_that_is_written_is_read_back_with_its_path(name: StageName, path: str) -> None:
    location = StageLocation(name, path)
    assert parse_location(str(location)) == location
    assert parse_location(f"{location}/") == location
    assert parse_name(str(name)) == name
    assert is_stage_name(str(location))


@given(plain_parts, plain_parts, plain_parts)
def test_identifiers_without_quotes_are_upper_case(database: str, schema: str, stage: str) -> None:
    name = parse_name(f"{database}.{schema}.{stage}")
    assert name.parts == (database.upper(), schema.upper(), stage.upper())
    assert parse_name(f'"{database.upper()}".{schema.lower()}."{stage.upper()}"') == name
    assert is_stage_name(f"{database}.{schema}.{stage}")


@given(names)
def test_a_stage_lies_three_folders_below_the_root_and_nowhere_else(name: StageName) -> None:
    root = Path("root")
    folder = root.joinpath(*name.folders)
    assert folder.parent.parent.parent == root
    assert not any(set(part) & set('/\\:"*?<>|\0') or part.strip(". ") != part for part in name.folders)


@given(names, names)
def test_two_names_have_two_folders_even_where_case_does_not_count(one: StageName, other: StageName) -> None:
    same = [tuple(unicodedata.normalize("NFC", part).casefold() for part in name.folders) for name in (one, other)]
    assert (same[0] == same[1]) == (one == other)


@pytest.mark.parametrize(
    "text",
    [
        "@",
        "@DB",
        "@DB.SCHEMA",
        "DB.SCHEMA.",
        "@DB.SCHEMA.STAGE.MORE",
        '@"DB.SCHEMA.STAGE',
        '@"".SCHEMA.STAGE',
        "@DB..STAGE",
        "@1DB.SCHEMA.STAGE",
        "@DB.SCHEMA.STAGE/../OTHER",
        "@DB.SCHEMA.STAGE/a/../../b",
        # Clients of services, and `file://` URLs, read these as they read `..`.
        "@DB.SCHEMA.STAGE/%2e%2E/OTHER",
        "@DB.SCHEMA.STAGE/a/.%2e/.%2e/b",
        "@DB.SCHEMA.STAGE/a%2f..%2f..%2fb",
        "@DB.SCHEMA.STAGE//etc",
        "@DB.SCHEMA.STAGE/./a",
        "@DB.SCHEMA.STAGE/a\\b",
        "@DB.SCHEMA.STAGE/a\0b",
        "@~/../x",
        "@~x",
        '@"D\nB".SCHEMA.STAGE',
        f'@"{"x" * 256}".SCHEMA.STAGE',
    ],
)
def test_what_is_no_name_or_leads_out_is_refused_with_the_text_and_what_to_write(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_location(text)
    assert caught.value.advice
    assert repr(text) in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        location = parse_location(text)
    except InvalidArgumentError:
        return
    assert ".." not in location.path.split("/")


def test_the_user_stage_has_a_name() -> None:
    assert parse_location("@~/train/2024") == StageLocation(None, "train/2024")
    assert str(StageLocation(None)) == "@~"
    with pytest.raises(InvalidArgumentError, match="user's own"):
        parse_name("@~")


def test_paths_and_urls_are_no_names() -> None:
    for text in ("stage", "./a.b.c", "a/b.c.d", "s3://a.b.c", "models.v1", "", "a.b.c.d"):
        assert not is_stage_name(text)
