"""The buffer pool against a model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kprod._core.buffer_pool import BufferPool

LIMIT = 20_000


class Pool(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = BufferPool(LIMIT, 3000)
        self.charges: list[int] = []

    @rule(size=st.integers(1, LIMIT + 100))
    def charge(self, size: int) -> None:
        fits = sum(self.charges) + size <= LIMIT
        assert self.pool.try_charge(size) is fits
        if fits:
            self.charges.append(size)

    @rule(size=st.integers(1, LIMIT + 100))
    def charge_without_patience(self, size: int) -> None:
        fits = sum(self.charges) + size <= LIMIT
        assert self.pool.charge(size, 0) is fits
        if fits:
            self.charges.append(size)

    @precondition(lambda self: self.charges)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.pool.uncharge(self.charges.pop(data.draw(st.integers(0, len(self.charges) - 1))))

    @rule(size=st.integers(0, 5000), times=st.integers(1, 3))
    def allocate_and_free(self, size: int, times: int) -> None:
        self.pool.cycle(self.pool.capacity_for(size), times)

    @invariant()
    def limits_hold(self) -> None:
        assert self.pool.used == sum(self.charges)
        # What goes round in the rule above is not charged; beside it nothing may exceed the limit.
        assert self.pool.used + self.pool.pooled <= LIMIT + 5000
        assert self.pool.waiting == 0


Pool.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_pool = Pool.TestCase
