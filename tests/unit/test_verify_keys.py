"""Keys that come back: all of them are found, whatever their order and however little fits in memory."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atdata_cli.shards import repeats
from atdata_cli.shards.problems import KeyBatch
from atdata_cli.shards.repeats import KeyLog

KEYS = st.lists(st.text("ab\0é", max_size=3), max_size=30)
ORDERED = KEYS.map(lambda keys: sorted(set(keys)))
SHARDS = st.lists(st.lists(st.one_of(KEYS, ORDERED), max_size=4), max_size=5)


def batch(shard: int, keys: list[str], first: int) -> KeyBatch:
    offsets = list(range(first, first + len(keys)))
    packed = KeyBatch.pack(keys, offsets, [("txt",)] * len(keys))
    ascending = all(map(operator.lt, keys, keys[1:]))
    return KeyBatch(shard, len(keys), min(keys), max(keys), ascending, packed)


def by_hand(shards: list[list[list[str]]], series: list[str]) -> list[tuple[str, int, int, int, int]]:
    """Key, shard, offset, and shard and offset of the first one."""
    first: dict[tuple[str, str], tuple[int, int]] = {}
    out = []
    for shard, batches in enumerate(shards):
        for offset, key in enumerate(key for keys in batches for key in keys):
            known = first.setdefault((series[shard], key), (shard, offset))
            if known != (shard, offset):
                out.append((key, shard, offset, *known))
    return sorted(out)


@pytest.mark.parametrize("at_once", [3, 250_000])
@given(SHARDS, st.lists(st.sampled_from("xy"), min_size=5, max_size=5), st.booleans())
def test_every_repeat_is_found(at_once: int, shards: list[list[list[str]]], series: list[str], backwards: bool) -> None:
    log = KeyLog(series)
    order = list(enumerate(shards))
    for shard, batches in reversed(order) if backwards else order:
        offset = 0
        for keys in batches:
            if keys:
                log.add(batch(shard, keys, offset))
            offset += len(keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats, "_AT_ONCE", at_once)
        found = [
            (again.key, again.place.shard, again.place.offset, again.first.shard, again.first.offset)
            for again in log.repeats()
        ]
    log.close()
    assert sorted(found) == by_hand(shards, series)


def test_keys_in_order_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    log = KeyLog(["x"] * 3)
    for shard in (2, 0, 1):
        for first in (0, 100):
            log.add(batch(shard, [f"{shard}-{number:04d}" for number in range(first, first + 100)], first))
    monkeypatch.delattr(KeyBatch, "unpack")
    assert list(log.repeats()) == []
    log.close()
