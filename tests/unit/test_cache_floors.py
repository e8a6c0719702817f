"""Floors: what was shown is remembered long enough, or its loss is known."""

from gateway.cache import Floors, Key


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def key(name: str) -> Key:
    return Key("order", "ann", name)


def test_a_floor_only_rises() -> None:
    floors = Floors(10)
    floors.show(key("a"), 3)
    floors.show(key("a"), 2)
    assert floors.of(key("a")) == 3
    assert floors.of(key("b")) == 0


def test_a_floor_lives_its_time_from_when_it_was_last_shown() -> None:
    clock = Clock()
    floors = Floors(10, clock=clock)
    floors.show(key("a"), 3)
    clock.now += 9
    floors.show(key("a"), 1)
    clock.now += 9
    assert floors.of(key("a")) == 3
    clock.now += 2
    assert floors.of(key("a")) == 0


def test_past_the_bound_the_unknown_is_asked_about_until_the_forgotten_would_have_run_out() -> None:
    clock = Clock()
    floors = Floors(10, floors_max=2, clock=clock)
    for name in ("a", "b", "c"):
        floors.show(key(name), 5)
        clock.now += 1
    assert floors.of(key("a")) is None
    assert floors.of(key("never seen")) is None
    assert floors.of(key("b")) == 5
    clock.now += 7
    assert floors.of(key("a")) == 0
    assert floors.of(key("c")) == 5


def test_memory_is_bounded() -> None:
    floors = Floors(1000, floors_max=10)
    for number in range(100):
        floors.show(key(str(number)), 1)
    assert sum(floors.knows(key(str(number))) for number in range(100)) == 10


def test_no_user_id_can_reach_anothers_entry() -> None:
    tricky = ["a", "a:b", "a%3Ab", "a:b:c", "*", "a\\", "{a}", "a/b"]
    names = {Key("order", user, entity).text() for user in tricky for entity in tricky}
    assert len(names) == len(tricky) ** 2
    assert all(name.count(":") == 2 for name in names)
