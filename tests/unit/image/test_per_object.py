"""What is kept of an object is the object's alone."""

from __future__ import annotations

from prebuilt_spawner.image.per_object import PerObject


def test_work_is_done_once_for_an_object_and_its_arguments() -> None:
    calls: list[tuple[list[int], int]] = []

    def work(about: list[int], number: int) -> int:
        calls.append((about, number))
        return sum(about) + number

    totals = PerObject(work)
    one, other = [1], [1]  # equal, and two objects without a hash
    assert [totals(one, 1), totals(one, 1), totals(one, 2), totals(other, 1)] == [2, 2, 3, 2]
    assert [about is one for about, _ in calls] == [True, True, False]


def test_what_was_asked_longest_ago_goes() -> None:
    calls: list[int] = []
    objects = [[number] for number in range(3)]
    kept = PerObject(lambda about: calls.append(about[0]), most=2)
    for number in (0, 1, 0, 2, 0, 1):
        kept(objects[number])
    assert calls == [0, 1, 2, 1]


def test_an_object_that_went_away_is_not_taken_for_one_that_came() -> None:
    """Python gives identities again."""
    kept = PerObject(lambda about: about[0], most=4)
    assert [kept([number]) for number in range(100)] == list(range(100))
