"""A claim that another worker has overtaken."""

from __future__ import annotations

import pytest
from small_studies import plan

from trainscope.studies import Store


@pytest.mark.parametrize("place", ["{}/study.db", "journal:{}/study.log"])
def test_a_worker_that_was_taken_for_dead_while_it_claimed_claims_the_next(place, tmp_path):
    store, other = Store(place.format(tmp_path)), Store(place.format(tmp_path))
    store.plan("x", plan(2))
    claim = store.queue.claim

    def overtaken(studies):
        found = claim(studies)
        if found is not None and found[1] == first.trial:
            other.release(first)
            other.fail(other.claim(), "another worker was faster")
        return found

    first = other.claim()
    other.release(first)
    store.queue.claim = overtaken
    claimed = store.claim()
    assert claimed is not None
    assert claimed.trial != first.trial
    assert store.claim() is None
    store.close()
    other.close()
