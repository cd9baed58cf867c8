"""One spelling and one partition for each unit."""

from __future__ import annotations

import unicodedata

from schemas.partition import murmur2, normal, partition, unit_bytes


def test_murmur2_is_kafkas() -> None:
    # From the test of Apache Kafka's own Utils.murmur2.
    known = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    for key, hashed in known.items():
        assert murmur2(key) == hashed % 2**32
    assert partition(b"21", 1) == 0
    assert {partition(str(i).encode(), 5) for i in range(100)} == set(range(5))


def test_spellings_of_one_unit_are_one() -> None:
    words = ("nfc", "trim", "lower")
    assert normal(" Zo\u00eb", words) == normal("ZOE\u0308 ", words) == "zo\u00eb"
    assert normal(" S1 ", ("nfc",)) == " S1 "
    assert unit_bytes(["s1"]) == b"s1"
    assert unit_bytes(["a", "bc"]) != unit_bytes(["ab", "c"])


def test_changing_case_does_not_part_two_spellings() -> None:
    """`upper` takes some letters apart, and the parts depend on how the letter was composed."""
    letter = "\u0390"  # iota with dialytika and tonos
    apart = unicodedata.normalize("NFD", letter)
    for words in (("nfc", "upper"), ("upper", "nfc"), ("nfc", "upper", "lower")):
        assert normal(letter, words) == normal(apart, words) == normal(normal(letter, words), words)
