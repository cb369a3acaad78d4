"""Names and records that nobody vouches for."""

from __future__ import annotations

import struct

import pytest
from dnslib import DNSBuffer, DNSLabel
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.dns.message_reader import (
    MAX_NAME_STEPS,
    MAX_POINTERS,
    NameReader,
    question_end,
    read_name,
    records,
    skip_name,
)
from halftunnel_vpn.errors import DnsError

HEADER = bytes(12)


def test_a_name_is_lower_case_and_without_its_last_dot() -> None:
    assert read_name(b"\x03WwW\x07Example\x03ORG\x00", 0) == "www.example.org"
    assert read_name(b"\x00", 0) == ""


def test_odd_bytes_of_a_label_are_escaped_so_that_names_stay_different() -> None:
    assert read_name(b"\x03a.b\x01c\x00", 0) == "a\\046b.c"
    assert read_name(b"\x04\xff \x00*\x00", 0) == "\\255\\032\\000\\042"


def test_a_compressed_name_is_followed_back() -> None:
    message = HEADER + b"\x07example\x03org\x00" + b"\x03www\xc0\x0c"
    assert read_name(message, 25) == "www.example.org"
    assert skip_name(message, 25) == len(message)


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"\xc0\x0c", id="to itself"),
        pytest.param(b"\xc0\x0e\xc0\x0c", id="forward and back"),
        pytest.param(b"\xc0\xff", id="behind the end"),
        pytest.param(b"\x01a\xc0\x0c", id="to its own label"),
        pytest.param(b"\xc0", id="half a pointer"),
        pytest.param(b"\x40a\x00", id="a label of an unknown kind"),
        pytest.param(b"\x80a\x00", id="another"),
        pytest.param(b"\x05abc", id="a label cut short"),
        pytest.param(b"\x03abc", id="no end"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_name_that_loops_or_ends_early_is_an_error(tail: bytes) -> None:
    with pytest.raises(DnsError, match="dns-bad-name"):
        read_name(HEADER + tail, 12)


def test_pointers_that_hide_in_labels_and_loop_are_an_error() -> None:
    # At 0x281 a label whose content holds a name that ends in a pointer (c2 81, which is also UTF-8) to it,
    # and behind it a pointer into its content: a walk that only forbids pointers forward never ends.
    front = b"".join(b"\x3f" + b"a" * 63 for _ in range(9)) + b"\x34" + b"a" * 52
    message = HEADER + front + b"\x04\x01a\xc2\x81\xc2\x82"
    assert message.index(b"\x04\x01a") == 0x281
    with pytest.raises(DnsError, match="dns-bad-name"):
        read_name(message, 0x281)


def pointers(count: int, base: int = 12) -> bytes:
    """The root at ``base``, and ``count`` pointers behind it, each to the one before."""
    targets = [base, *range(base + 1, base + 2 * count - 1, 2)]
    return b"\x00" + b"".join(struct.pack("!H", 0xC000 | target) for target in targets)


def test_a_name_goes_through_a_bounded_number_of_pointers() -> None:
    for count, fits in ((MAX_POINTERS, True), (MAX_POINTERS + 1, False)):
        message = HEADER + pointers(count)
        if fits:
            assert read_name(message, len(message) - 2) == ""
        else:
            with pytest.raises(DnsError, match="dns-bad-name"):
                read_name(message, len(message) - 2)


def test_all_names_of_a_message_together_take_bounded_work() -> None:
    """Each name is short enough; that they are many and all different makes the work."""
    message = HEADER + b"\x01a" * 8000 + b"\x00"
    names = NameReader(message)
    last = len(message) - 1 - 2 * 126
    for start in range(MAX_NAME_STEPS // 126):
        assert names.text(last + 2 * (start % 126)).count("a") == 126 - start % 126
    with pytest.raises(DnsError, match="dns-bad-name"):
        for start in range(12, len(message), 2):
            names.text(start + 1)


def test_a_name_that_was_read_is_remembered_wherever_it_is_pointed_to() -> None:
    message = HEADER + b"\x07example\x03org\x00" + b"\xc0\x0c" * 8000 + b"\x03www\xc0\x0c"
    names = NameReader(message)
    for offset in range(25, 25 + 16_000, 2):
        assert names.text(offset) == "example.org"
    assert names.text(len(message) - 6) == "www.example.org"
    assert names.labels(len(message) - 6) == (b"www", b"example", b"org")


def test_a_remembered_name_counts_in_the_length_of_a_longer_one() -> None:
    longest = b"\x3f" + b"a" * 63
    message = HEADER + longest * 3 + b"\x00" + longest + b"\xc0\x0c"
    names = NameReader(message)
    names.text(12)
    with pytest.raises(DnsError, match="dns-bad-name"):
        names.text(12 + 193)


def test_a_name_that_is_skipped_takes_at_most_255_bytes_too() -> None:
    with pytest.raises(DnsError, match="dns-bad-name"):
        skip_name(HEADER + b"\x01a" * 128 + b"\x00", 12)
    assert skip_name(HEADER + b"\x01a" * 127 + b"\x00", 12) == 12 + 255


def test_a_name_may_take_255_bytes_and_no_more() -> None:
    longest = b"\x3f" + b"a" * 63
    fits = longest * 3 + b"\x3d" + b"b" * 61 + b"\x00"
    assert len(fits) == 255
    assert len(read_name(fits, 0)) == 253
    with pytest.raises(DnsError, match="dns-bad-name"):
        read_name(longest * 3 + b"\x3e" + b"b" * 62 + b"\x00", 0)


def test_a_question_is_at_most_255_bytes_and_never_compressed() -> None:
    longest = b"\x3f" + b"a" * 63
    assert question_end(HEADER + b"\x01a\x00\x00\x01\x00\x01") == 15
    for name in (longest * 4 + b"\x00", b"\x01a\xc0\x0c", b"\x01a", b""):
        with pytest.raises(DnsError, match="dns-bad-name"):
            question_end(HEADER + name + bytes(4))
    with pytest.raises(DnsError, match="dns-bad-name"):
        question_end(HEADER + b"\x01a\x00\x00\x01\x00")


def test_records_tell_where_their_parts_are() -> None:
    message = HEADER + b"\x00" + struct.pack("!HHIH", 1, 1, 60, 4) + b"\xc0\x00\x02\x01"
    message += b"\x00" + struct.pack("!HHIH", 6, 1, 0x80000000, 0)
    answer, authority = records(message, 12, (1, 1, 0))
    assert (answer.section, answer.type, answer.ttl, message[answer.data : answer.end]) == (
        0,
        1,
        60,
        b"\xc0\0\2\1",
    )
    assert message[answer.ttl_offset : answer.ttl_offset + 4] == b"\x00\x00\x00\x3c"
    assert (authority.section, authority.ttl, authority.length) == (1, 0, 0), "a TTL with the top bit is zero"


@pytest.mark.parametrize("cut", range(1, 15))
def test_a_record_cut_short_anywhere_is_an_error(cut: int) -> None:
    message = HEADER + b"\x00" + struct.pack("!HHIH", 1, 1, 60, 4) + b"\xc0\x00\x02\x01"
    with pytest.raises(DnsError):
        list(records(message[:-cut], 12, (1, 0, 0)))


@given(st.lists(st.binary(min_size=1, max_size=20).filter(bytes.isascii), max_size=6))
def test_what_dnslib_writes_is_read_as_it_was_meant(labels: list[bytes]) -> None:
    buffer = DNSBuffer(HEADER)
    buffer.offset = len(HEADER)
    buffer.encode_name(DNSLabel(tuple(labels)))
    buffer.encode_name(DNSLabel((b"sub", *labels)))
    message = bytes(buffer.data)
    name = read_name(message, 12)
    second = skip_name(message, 12)
    assert name.count(".") == max(len(labels) - 1, 0)
    assert read_name(message, second) == ("sub." + name if name else "sub")
    assert skip_name(message, second) == len(message)


@given(st.binary(max_size=300), st.integers(0, 310))
def test_any_bytes_are_a_name_or_an_error(message: bytes, offset: int) -> None:
    try:
        assert len(read_name(message, offset)) <= 4 * 255
    except DnsError as error:
        assert error.reason == "dns-bad-name"


POINTERS = st.lists(
    st.sampled_from([b"\xc0\x00", b"\xc0\x02", b"\xc0\x05", b"\x01a", b"\x02\xc0\x03", b"\x00", b"\xc0\x09"])
)


@given(POINTERS.map(b"".join), st.integers(0, 40))
def test_no_tangle_of_pointers_is_walked_for_ever(message: bytes, offset: int) -> None:
    try:
        read_name(message, offset)
    except DnsError as error:
        assert error.reason == "dns-bad-name"


@given(st.binary(max_size=200), st.tuples(*[st.integers(0, 65535)] * 3))
def test_any_bytes_are_records_or_an_error(message: bytes, counts: tuple[int, int, int]) -> None:
    try:
        found = list(records(message, 0, counts))
    except DnsError as error:
        assert error.reason in ("dns-bad-name", "dns-bad-record")
    else:
        assert len(found) == sum(counts)
        assert all(record.end <= len(message) for record in found)
