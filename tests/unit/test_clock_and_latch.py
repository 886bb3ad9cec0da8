"""kp_clock.h with a counter of the test's own, and kp_latch.h between threads."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
HEADERS = ROOT / "src" / "kprod" / "_core" / "csrc"

SOURCE = """
#include <stddef.h>
#include "kp_thread.h"
#include "kp_atomic.h"
static int64_t fake_us, fake_ticks, delay_ticks;
#define KP_CLOCK_COUNTS 1
static int64_t kp_clock_ticks(void) { fake_ticks += delay_ticks; return fake_ticks; }
static int64_t fake_monotonic_us(void) { return fake_us; }
#define kp_monotonic_us fake_monotonic_us
#include "kp_clock.h"
#include "kp_latch.h"

static kp_clock tested;
void begin(int64_t us) {
    fake_us = us;
    fake_ticks = 1000;
    delay_ticks = 0;
    kp_clock_init(&tested);
    tested.unusable = 0;  /* whether this machine's counter may be read does not matter here */
}
void advance(int64_t us, int64_t ticks) { fake_us += us; fake_ticks += ticks; }
void interrupt_reads(int64_t ticks) { delay_ticks = ticks; }
void forbid(void) { tested.unusable = 1; }
int64_t now(void) { return kp_clock_us(&tested); }
int64_t read_now(void) { return kp_clock_read(&tested); }
int64_t looks(void) { return tested.version / 2; }

/* Threads that count to a number under the latch, in a variable that is not atomic. */
static kp_latch latch;
static int64_t counted;
static void *count(void *times) {
    for (int64_t i = 0; i < *(int64_t *)times; i++) {
        kp_latch_lock(&latch);
        counted++;
        if (i % 1000 == 0) sched_yield();  /* others find it taken, by one that does not run */
        kp_latch_unlock(&latch);
    }
    return NULL;
}
int64_t count_with(int threads, int64_t times) {
    pthread_t started[16];
    kp_latch_init(&latch);
    counted = 0;
    for (int i = 0; i < threads; i++) pthread_create(&started[i], NULL, count, &times);
    for (int i = 0; i < threads; i++) pthread_join(started[i], NULL);
    kp_latch_destroy(&latch);
    return counted;
}
"""

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("cc") is None or not HEADERS.is_dir(),
    reason="needs a C compiler and the sources",
)


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("clock")
    source = folder / "clock.c"
    source.write_text(SOURCE)
    library = folder / "clock.so"
    subprocess.run(
        ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-shared", "-fPIC"]
        + ["-pthread", f"-I{HEADERS}", "-o", str(library), str(source)],
        check=True,
    )
    loaded = ctypes.CDLL(str(library))
    for function in ("now", "read_now", "looks", "count_with"):
        getattr(loaded, function).restype = ctypes.c_int64
    for function in ("begin", "interrupt_reads"):
        getattr(loaded, function).argtypes = [ctypes.c_int64]
    loaded.advance.argtypes = [ctypes.c_int64, ctypes.c_int64]
    loaded.count_with.argtypes = [ctypes.c_int, ctypes.c_int64]
    return loaded


def calibrate(c: ctypes.CDLL, us: int, ticks_per_us: int) -> int:
    c.begin(us)
    c.now()
    return us + settle(c, ticks_per_us)


def settle(c: ctypes.CDLL, ticks_per_us: int) -> int:
    for _ in range(3):
        c.advance(1000, 1000 * ticks_per_us)
        c.read_now()
    return 3000


def test_between_two_looks_at_the_system_clock_the_counter_tells_the_time(c: ctypes.CDLL) -> None:
    base = calibrate(c, 10**12, 2500)
    looks = c.looks()
    for _ in range(99):
        c.advance(10, 25_000)
        base += 10
        assert abs(c.now() - base) <= 1
    assert c.looks() == looks
    c.advance(20, 50_000)
    assert c.now() == base + 20
    assert c.looks() == looks + 1


speeds = st.sampled_from([24, 100, 1000, 2500, 5200])
steps = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 1500), st.integers(0, 10**9)),  # us that pass
        # a jump, in ticks: forward, or back behind the last look
        st.one_of(st.just(0), st.integers(0, 10**13), st.integers(0, 10**6), st.integers(-(10**13), -1)),
    ),
    max_size=40,
)


@given(speed=speeds, steps=steps)
def test_a_counter_that_jumps_is_off_by_less_than_a_millisecond(
    c: ctypes.CDLL, speed: int, steps: list[tuple[int, int]]
) -> None:
    real = calibrate(c, 5 * 10**9, speed)
    for us, jump in steps:
        c.advance(us, us * speed)
        real += us
        c.advance(0, jump if jump >= 0 else jump - us * speed)
        # 5 %: how much of another speed is believed at most.
        assert real - 1050 <= c.now() <= real + 1050
        assert c.read_now() == real
        # What jumps by the same amount again and again has another speed.
        real += settle(c, speed)


@given(speed=speeds, other=speeds, us=st.lists(st.integers(1, 3000), min_size=20, max_size=60))
def test_another_speed_is_learnt_anew(c: ctypes.CDLL, speed: int, other: int, us: list[int]) -> None:
    real = calibrate(c, 0, speed)
    slower = max(1.0, speed / other)
    for step in us:
        c.advance(step, step * other)
        real += step
        assert real - 1050 * slower <= c.now() <= real + 1050
    for _ in range(4):
        c.advance(1000, 1000 * other)
        real += 1000
        c.read_now()
    c.advance(400, 400 * other)
    assert abs(c.now() - (real + 400)) <= 1


def test_a_counter_that_stops_holds_until_the_next_look(c: ctypes.CDLL) -> None:
    real = calibrate(c, 10**6, 2500)
    c.advance(10**7, 0)
    assert c.now() == real
    assert c.read_now() == real + 10**7
    assert c.now() == real + 10**7


def test_a_look_that_was_interrupted_is_not_believed(c: ctypes.CDLL) -> None:
    real = calibrate(c, 10**6, 2500)
    looks = c.looks()
    c.interrupt_reads(60_000)
    c.advance(5000, 5000 * 2500)
    assert c.now() == real + 5000
    assert c.looks() == looks


def test_the_system_clock_is_read_where_the_counter_may_not_be(c: ctypes.CDLL) -> None:
    c.begin(10**6)
    c.forbid()
    for i in range(1, 10):
        c.advance(700, 17)
        assert c.now() == 10**6 + 700 * i
    assert c.looks() == 0


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_one_thread_at_a_time_has_a_latch(c: ctypes.CDLL, threads: int) -> None:
    assert c.count_with(threads, 100_000) == threads * 100_000
