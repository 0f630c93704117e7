"""Which pictures are computed together."""

from __future__ import annotations

import random

from workers.diffusion.schedule import Order, Share, next_round, rounds_left


def room(count: int):  # type: ignore[no-untyped-def]
    return lambda _key: count


def test_requests_that_agree_run_together_oldest_first() -> None:
    queue = [Order("a", "512", 1), Order("b", "768", 1), Order("c", "512", 2), Order("d", "512", 1)]
    assert next_round(queue, room(3)) == [Share("a", 0, 1), Share("c", 0, 2)]


def test_the_oldest_is_in_every_round_whatever_it_agrees_with() -> None:
    queue = [Order("odd", "768", 1), *(Order(f"{i}", "512", 1) for i in range(9))]
    assert next_round(queue, room(8)) == [Share("odd", 0, 1)]


def test_many_pictures_of_one_request_take_several_rounds_and_the_last_has_company() -> None:
    first, second = Order("a", "k", 5), Order("b", "k", 2)
    assert next_round([first, second], room(4)) == [Share("a", 0, 4)]
    first.done = 4
    assert next_round([first, second], room(4)) == [Share("a", 4, 1), Share("b", 0, 2)]
    assert rounds_left(5, 4) == 2


def test_a_picture_that_fits_nowhere_still_gets_its_turn() -> None:
    assert next_round([Order("a", "huge", 2)], room(0)) == [Share("a", 0, 1)]


def test_the_room_is_that_of_the_oldest_key() -> None:
    rooms = {"large": 1, "small": 4}
    queue = [Order("a", "large", 2), Order("b", "small", 4)]
    assert next_round(queue, rooms.__getitem__) == [Share("a", 0, 1)]


def test_nothing_waits_where_all_is_done() -> None:
    assert next_round([], room(4)) == []
    assert next_round([Order("a", "k", 2, done=2)], room(4)) == []


def test_nobody_starves_and_no_picture_is_computed_twice() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    queue: list[Order[int]] = []
    done: list[tuple[str, int]] = []
    ages: dict[str, int] = {}
    for turn in range(300):
        if turn < 200:
            order = Order(f"{turn}", dice.randrange(3), dice.randint(1, 5))
            queue.append(order)
            ages[order.request] = sum(each.left for each in queue)
        for share in next_round(queue, room(3)):
            order = next(each for each in queue if each.request == share.request)
            assert share.first == order.done
            order.done += share.count
            done += [(share.request, n) for n in range(share.first, share.first + share.count)]
        queue = [each for each in queue if each.left]
        for each in queue:
            ages[each.request] -= 1
            assert ages[each.request] >= 0, "waited longer than one round for each picture before it"
    while queue:
        for share in next_round(queue, room(3)):
            next(each for each in queue if each.request == share.request).done += share.count
        queue = [each for each in queue if each.left]
    assert len(set(done)) == len(done)
