from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from atdata_cli.errors import DataError, UsageError
from atdata_cli.samples.keys import KeyTemplate, UniqueKeys, check_field, check_key, is_meta, number_keys, split_name

PATHS = st.one_of(st.text(alphabet="ab./\n_", max_size=12), st.text(max_size=30))


@given(PATHS)
@example("a/b/.hidden")
@example("a.d/b/.hid")
@example("x\ny/a.jpg")
@example("x\ny/.jpg")
@example("//.a")
@example(".a")
@example("a.jpg\n")
def test_split_name_is_webdatasets_rule(path: str) -> None:
    assert (split_name(path) or (None, None)) == base_plus_ext(path)


def test_split_name_takes_linear_time_where_the_expression_takes_quadratic() -> None:
    assert split_name("a/" * 200_000 + ".b/.c") is None


@pytest.mark.parametrize("key", ["0000000001", "cat/01", "a b/c-d_e", "über/straße", "a.b/c", "__init__", "x" * 4096])
def test_good_keys(key: str) -> None:
    assert check_key(key) is None


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("a/../b", "'..'"),
        ("..", "'..'"),
        ("a//b", "rename it to 'a/b'"),
        ("./a", "rename it to 'a'"),
        ("a/", "rename it to 'a'"),
        (".", "not a plain path"),
        ("a\nb", "control character"),
        ("a\x00b", "control character"),
        ("a\x85b", "control character"),
        ("a\udcff", "not valid UTF-8"),
        ("dir.x/user@x.com", "rename it to 'dir.x/user@x_com'"),
        ("x" * 4097, "4097 bytes"),
        ("ü" * 2049, "4098 bytes"),
        ("__meta__/a", "readers skip"),
    ],
)
def test_bad_keys_say_why(key: str, reason: str) -> None:
    assert reason in (check_key(key) or "")


@given(st.text(alphabet="ab_./\x00 ü", max_size=10), st.text(alphabet="ab_./\x00 ü", max_size=6))
def test_what_passes_both_checks_is_read_back_as_it_was(key: str, field: str) -> None:
    if check_key(key) is None and check_field(field) is None:
        name = f"{key}.{field}"
        assert base_plus_ext(name) == (key, field)
        assert not is_meta(name)


@pytest.mark.parametrize("field", ["jpg", "seg.png", "JPG", "x_y", "größe", "7z"])
def test_good_fields(field: str) -> None:
    assert check_field(field) is None


@pytest.mark.parametrize(
    ("field", "reason"),
    [("", "empty"), ("a/b", "slash"), ("_x", "'x'"), ("a__", "'a'"), ("a\n", "control"), ("\ud800", "UTF-8")],
)
def test_bad_fields_say_why(field: str, reason: str) -> None:
    assert reason in (check_field(field) or "")


def render(template: str, row: dict[str, object]) -> str:
    return KeyTemplate.parse(template).render(row, 7, "rows")


def test_templates() -> None:
    row = {"id": 12, "name": "x", "row": "own", "weird name": "w"}
    assert render("id", row) == "12"
    assert render("row", row) == "own"
    assert render("weird name", row) == "w"
    assert render("{row}", row) == "0000000007"
    assert render("{stem}-{row}", row) == "rows-0000000007"
    assert render("{{{name}}}/{id}", row) == "{x}/12"
    assert KeyTemplate.parse("{stem}-{id}-{name}-{id}").fields == ("id", "name")
    assert KeyTemplate.parse("row").fields == ("row",)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "{}",
        "{0.real}",
        "{a.b}",
        "{a[0]}",
        "{a!r}",
        "{a:>10}",
        "{a:{b}}",
        "{a",
        "a}",
        "{{a}}",
        "{a.__class__}",
    ],
)
def test_templates_reach_into_nothing(template: str) -> None:
    with pytest.raises(UsageError):
        KeyTemplate.parse(template)


@pytest.mark.parametrize("value", [None, 1.5, True, ["a"], {"a": 1}, b"x"])
@pytest.mark.parametrize("template", ["id", "x-{id}"])
def test_only_text_and_integers_make_keys(template: str, value: object) -> None:
    with pytest.raises(DataError, match="'id'"):
        render(template, {"id": value})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(DataError, match="'id', which is missing"):
        render("{id}", {"other": 1})


@given(
    st.lists(st.lists(st.text(alphabet="abé", max_size=3), max_size=8), max_size=12),
    st.integers(min_value=1, max_value=9),
)
def test_unique_keys_are_exact_on_disk_and_in_memory(batches: list[list[str]], in_memory: int) -> None:
    unique = UniqueKeys(in_memory)
    seen: dict[str, str] = {}
    for number, batch in enumerate(batches):
        places = [f"{number}:{index}" for index in range(len(batch))]
        expected = []
        for index, key in enumerate(batch):
            first = seen.setdefault(key, places[index])
            if first != places[index]:
                expected.append((index, first))
        assert unique.add_many(batch, places) == expected


@pytest.mark.parametrize("in_memory", [10, 100_000])
def test_ascending_keys_are_remembered_when_the_order_ends(in_memory: int) -> None:
    unique = UniqueKeys(in_memory)
    for begin in range(0, 1000, 7):
        keys = [f"{number:06d}" for number in range(begin, begin + 7)]
        assert unique.add_many(keys, keys) == []
    assert unique.add_many(["000500", "x", "x"], ["p", "q", "r"]) == [(0, "000500"), (2, "q")]
    assert unique.add("000003", "p") == "000003"
    assert unique.add("y", "p") is None
    assert unique.add("y", "q") == "p"


@pytest.mark.parametrize("keys", [["a", "b", "c"], ["c", "b", "a"]])
def test_places_may_be_names_that_are_not_utf8(keys: list[str]) -> None:
    unique = UniqueKeys(1)
    for key in keys:
        assert unique.add(key, f"caf\udce9.jsonl:{key} ü") is None
    assert unique.add("a", "later") == "caf\\udce9.jsonl:a ü"


def test_many_keys_in_random_order() -> None:
    chance = random.Random(5)
    keys = [f"{chance.getrandbits(40):x}" for _ in range(20_000)]
    unique = UniqueKeys(3_000)
    assert unique.add_many(keys, keys) == []
    again = [(index, key) for index, key in enumerate(keys)]
    assert unique.add_many(keys, ["later"] * len(keys)) == again


@pytest.mark.parametrize("numbers", [range(3), range(998, 2001), range(10**10 - 1, 10**10 + 2), [5, 7], range(0)])
def test_keys_of_record_numbers(numbers):
    assert number_keys(numbers) == [f"{number:010d}" for number in numbers]
