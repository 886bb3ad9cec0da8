"""The data set of ``kprod demo``: a day of a web shop, the same for the same seed on every machine."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Stream:
    """A kind of events, which go to a topic of their own.

    Attributes:
        name: of the topic, after the prefix.
        partitions: of the topic, where the demo creates it.
        codec: its compression, unless another is asked for.
        key: what its keys are.
    """

    name: str
    partitions: int
    codec: str
    key: str


CLICKSTREAM = Stream("clickstream", 12, "zstd", "user")
ORDERS = Stream("orders", 6, "lz4", "user")
SENSORS = Stream("sensors", 3, "lz4", "sensor")
STREAMS = (CLICKSTREAM, ORDERS, SENSORS)


class Event(NamedTuple):
    """One event.

    Attributes:
        stream: name of its stream.
        key: who it is about.
        value: JSON; ``seq`` in it counts the events of its stream and key from 1.
        headers: trace id, content type and schema.
        timestamp_ms: ms since 1970.
    """

    stream: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp_ms: int


DAY_START_MS = 1_779_408_000_000
"""Friday 2026-05-22, 00:00 UTC."""

_DAY_MS = 86_400_000
# How busy each hour is: people sleep, shop in the lunch break and most of all in the evening.
_HOURS = (9, 5, 3, 2, 2, 4, 9, 17, 26, 31, 33, 36, 43, 41, 35, 33, 35, 41, 50, 61, 68, 60, 41, 20)
_EVENTS_PER_USER = 15
_SENSORS = 40
_SENSOR_SHARE = 0.14

_COUNTRIES = ("DE", "FR", "US", "GB", "NL", "PL", "ES", "IT", "SE", "JP")
_DEVICES = ("ios", "android", "desktop", "desktop", "android", "ios", "tablet")
_PRODUCTS = (
    "espresso-machine", "coffee-grinder", "kettle", "teapot", "travel-mug", "filter-papers", "milk-frother",
    "arabica-1kg", "robusta-500g", "decaf-500g", "earl-grey", "green-sencha", "rooibos", "sugar-bowl",
    "descaler", "portafilter", "tamper", "scale", "thermometer", "cleaning-brush",
)  # fmt: skip
_SEARCHES = ("coffee", "espresso", "gift", "tea", "grinder", "mug", "sale", "decaf", "organic", "spare parts")
_Number = Callable[[], float]
_JSON_HEADER = ("content-type", b"application/json")
_CLICK_SCHEMA = ("schema", b"click/3")
_ORDER_SCHEMA = ("schema", b"order/7")
_SENSOR_SCHEMA = ("schema", b"reading/1")


@dataclass
class _Visit:
    """Where a user is in the shop."""

    session: str
    device: str
    country: str
    product: int = -1
    basket: int = 0
    clicks: int = 0
    orders: int = 0


def generate_events(count: int, seed: int) -> Iterator[Event]:
    """Events in the order of their time.

    Args:
        count: how many.
        seed: of the random numbers.
    """
    # Of Random only random() and getrandbits() give the same on all versions of Python.
    rng = random.Random(seed)
    number = rng.random
    users = max(1, count // _EVENTS_PER_USER)
    visits: dict[int, _Visit] = {}
    readings = [0] * _SENSORS
    for timestamp_ms in _times(count, rng):
        trace = ("trace-id", b"%016x" % rng.getrandbits(64))
        if number() < _SENSOR_SHARE:
            sensor = int(number() * _SENSORS)
            readings[sensor] += 1
            yield _reading(sensor, readings[sensor], number, trace, timestamp_ms)
            continue
        # The third power: a few come all the time, most of them rarely.
        user = int(users * number() ** 3)
        visit = visits.get(user)
        if visit is None or number() < 0.08:
            before = visit
            visit = _Visit(
                f"{rng.getrandbits(48):012x}",
                _DEVICES[int(number() * len(_DEVICES))],
                _COUNTRIES[int(len(_COUNTRIES) * number() ** 2)],
            )
            if before is not None:
                visit.clicks, visit.orders = before.clicks, before.orders
            visits[user] = visit
        if visit.basket and number() < 0.12:
            yield _order(user, visit, number, trace, timestamp_ms)
        else:
            yield _click(user, visit, number, trace, timestamp_ms)


def _times(count: int, rng: random.Random) -> Iterator[int]:
    """Ascending times of a day, close together in busy hours."""
    weight = sum(_HOURS)
    done = 0
    passed = 0
    for hour, busy in enumerate(_HOURS):
        passed += busy
        until = count * passed // weight
        here = until - done
        for i in range(here):
            yield DAY_START_MS + (_DAY_MS // 24) * hour + int((_DAY_MS // 24) * (i + rng.random()) / here)
        done = until


def _click(user: int, visit: _Visit, number: _Number, trace: tuple[str, bytes], timestamp_ms: int) -> Event:
    visit.clicks += 1
    choice = number()
    if visit.product < 0 or choice < 0.25:
        visit.product = int(len(_PRODUCTS) * number() ** 2)
        what = "search"
        page = f"/search?q={_SEARCHES[int(number() * len(_SEARCHES))]}"
    elif choice < 0.8:
        visit.product = int(len(_PRODUCTS) * number() ** 2)
        what = "view"
        page = f"/p/{1000 + visit.product}-{_PRODUCTS[visit.product]}"
    else:
        visit.basket += 1
        what = "add_to_cart"
        page = f"/p/{1000 + visit.product}-{_PRODUCTS[visit.product]}"
    key = f"user-{user:06d}"
    value = (
        f'{{"seq":{visit.clicks},"event":"{what}","user":"{key}","session":"{visit.session}","page":"{page}",'
        f'"device":"{visit.device}","country":"{visit.country}","render_ms":{int(20 + 400 * number() ** 4)}}}'
    )
    return Event(
        CLICKSTREAM.name, key.encode(), value.encode(), [trace, _JSON_HEADER, _CLICK_SCHEMA], timestamp_ms
    )


def _order(user: int, visit: _Visit, number: _Number, trace: tuple[str, bytes], timestamp_ms: int) -> Event:
    visit.orders += 1
    lines = []
    cents = 0
    for _ in range(min(visit.basket, 8)):
        product = int(len(_PRODUCTS) * number())
        price = 199 + product * 730
        cents += price
        lines.append(f'{{"sku":"{1000 + product}","name":"{_PRODUCTS[product]}","cents":{price}}}')
    visit.basket = 0
    key = f"user-{user:06d}"
    value = (
        f'{{"seq":{visit.orders},"order":"{key}-{visit.orders}","user":"{key}","session":"{visit.session}",'
        f'"country":"{visit.country}","lines":[{",".join(lines)}],"total_cents":{cents},"currency":"EUR"}}'
    )
    return Event(
        ORDERS.name, key.encode(), value.encode(), [trace, _JSON_HEADER, _ORDER_SCHEMA], timestamp_ms
    )


def _reading(sensor: int, seq: int, number: _Number, trace: tuple[str, bytes], timestamp_ms: int) -> Event:
    key = f"warehouse-{sensor // 10 + 1}/shelf-{sensor % 10}"
    value = (
        f'{{"seq":{seq},"sensor":"{key}","celsius":{17 + sensor % 7 + number():.2f},'
        f'"humidity":{0.4 + number() * 0.1:.3f},"battery":{100 - sensor % 30}}}'
    )
    return Event(
        SENSORS.name, key.encode(), value.encode(), [trace, _JSON_HEADER, _SENSOR_SCHEMA], timestamp_ms
    )
