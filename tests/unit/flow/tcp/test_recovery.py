"""What is lost, in which order it goes out again, and when the repair is over. Segments of 1000 bytes."""

from __future__ import annotations

from halftunnel_vpn.flow.tcp.recovery import NO_BLOCKS, LossRecovery


def ack(
    recovery: LossRecovery,
    una: int,
    nxt: int,
    *blocks: tuple[int, int],
    advanced: bool = False,
) -> bool:
    return recovery.acknowledged(
        una, nxt, advanced=advanced, repeated=not advanced, blocks=blocks or NO_BLOCKS
    )


def test_nothing_is_busy_without_a_sign() -> None:
    recovery = LossRecovery(1000, 1000, sack=True)
    assert not ack(recovery, 5000, 9000, advanced=True)
    assert not recovery.busy
    assert recovery.next_hole(5000) is None
    assert recovery.pipe(5000, 9000) == 4000


def test_sack_finds_every_hole_in_order() -> None:
    recovery = LossRecovery(1000, 1000, sack=True)
    assert not ack(recovery, 0, 10_000, (1000, 3000))
    assert recovery.busy
    assert recovery.pipe(0, 10_000) == 8000
    assert ack(recovery, 0, 10_000, (4000, 8000), (1000, 3000))
    assert recovery.next_hole(0) == (0, 1000)
    assert recovery.pipe(0, 10_000) == 2000  # 8000 to 10 000: all else has arrived or is lost
    recovery.sent_again(1000)
    assert recovery.pipe(0, 10_000) == 3000
    assert recovery.next_hole(0) == (3000, 4000)
    recovery.sent_again(3500)
    assert recovery.next_hole(0) == (3500, 4000)
    recovery.sent_again(4000)
    assert recovery.next_hole(0) is None

    assert not ack(recovery, 3000, 12_000, advanced=True)
    assert recovery.active
    assert recovery.next_hole(3000) is None  # went out again, and the answer is on its way
    assert not ack(recovery, 10_000, 12_000, advanced=True)
    assert not recovery.busy


def test_a_loss_begins_where_nothing_is_known_and_ends_at_the_next_report() -> None:
    recovery = LossRecovery(1000, 65_000, sack=True)
    assert ack(recovery, 0, 10_000, (4000, 9000))
    assert recovery.next_hole(0) == (0, 4000)
    recovery.sent_again(4000)
    assert not ack(recovery, 9000, 10_000, advanced=True)
    assert recovery.next_hole(9000) == (9000, 10_000)


def test_blocks_count_only_within_what_is_outstanding() -> None:
    recovery = LossRecovery(1000, 1000, sack=True)
    base = (1 << 32) + 500  # wrapped once
    assert not ack(recovery, base, base + 9000, (400, 450), (0, 9900), (600, 500), (499, 700))
    assert recovery.pipe(base, base + 9000) == 9000
    assert ack(recovery, base, base + 9000, (1500, 9500))
    assert recovery.next_hole(base) == (base, base + 1000)


def test_blocks_of_a_host_that_did_not_agree_to_them_are_ignored() -> None:
    recovery = LossRecovery(1000, 1000, sack=False)
    assert not ack(recovery, 0, 9000, (1000, 9000), advanced=True)
    assert recovery.pipe(0, 9000) == 9000


def test_duplicates_and_partial_acknowledgements_without_sack() -> None:
    recovery = LossRecovery(1000, 1000, sack=False)
    assert not ack(recovery, 5000, 12_000)
    assert not ack(recovery, 5000, 12_000)
    assert recovery.pipe(5000, 12_000) == 5000
    assert ack(recovery, 5000, 12_000)
    assert recovery.next_hole(5000) == (5000, 6000)
    recovery.sent_again(6000)
    assert recovery.next_hole(5000) is None
    assert not ack(recovery, 8000, 13_000, advanced=True)
    assert recovery.next_hole(8000) == (8000, 9000)
    recovery.sent_again(9000)
    assert not ack(recovery, 12_000, 13_000, advanced=True)
    assert not recovery.active
    for _ in range(3):
        assert not ack(recovery, 12_000, 13_000)  # echoes of the repair
    assert not ack(recovery, 12_500, 13_000, advanced=True)
    assert [ack(recovery, 12_500, 13_000) for _ in range(3)] == [False, False, True]


def test_after_a_timeout_everything_is_lost_but_what_is_reported_anew() -> None:
    recovery = LossRecovery(1000, 1000, sack=True)
    ack(recovery, 0, 10_000, (5000, 6000))
    recovery.timed_out(0, 10_000)
    assert recovery.pipe(0, 10_000) == 0
    assert recovery.next_hole(0) == (0, 10_000)
    recovery.sent_again(1000)
    assert recovery.pipe(0, 10_000) == 1000
    assert not ack(recovery, 1000, 10_000, (5000, 6000), advanced=True)
    assert recovery.by_timeout
    assert recovery.next_hole(1000) == (1000, 5000)
    recovery.sent_again(5000)
    assert recovery.next_hole(1000) == (6000, 10_000)
    assert not ack(recovery, 10_000, 10_000, advanced=True)
    assert not (recovery.active or recovery.by_timeout or recovery.busy)
