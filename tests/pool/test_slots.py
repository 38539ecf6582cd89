"""The slots that bound what executes."""

import asyncio
import contextlib

import pytest

from polos.worker.slots import Slot, Slots


async def settled() -> None:
    """Let every task of the loop run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_are_given_than_there_are() -> None:
    slots = Slots(2)
    await slots.acquire()
    await slots.acquire()
    third = asyncio.create_task(slots.acquire())
    await settled()
    assert (third.done(), slots.free, slots.waiting) == (False, 0, 1)
    slots.release()
    await third
    assert (slots.free, slots.waiting) == (0, 0)


async def test_resuming_tasks_go_ahead_of_new_ones_and_each_kind_in_order() -> None:
    slots, order = Slots(1), []

    async def take(name: str, resuming: bool) -> None:
        await slots.acquire(resuming=resuming)
        order.append(name)
        slots.release()

    await slots.acquire()
    names = [("new 1", False), ("resumed 1", True), ("new 2", False), ("resumed 2", True)]
    tasks = [asyncio.create_task(take(*name)) for name in names]
    await settled()
    slots.release()
    await asyncio.gather(*tasks)
    assert order == ["resumed 1", "resumed 2", "new 1", "new 2"]


@pytest.mark.parametrize("resuming", [False, True])
async def test_a_waiter_cancelled_while_it_waits_is_forgotten(resuming: bool) -> None:
    slots = Slots(1)
    await slots.acquire()
    waiter = asyncio.create_task(slots.acquire(resuming=resuming))
    await settled()
    waiter.cancel()
    await settled()
    assert slots.waiting == 0
    slots.release()
    assert slots.free == 1


@pytest.mark.parametrize("resuming", [False, True])
async def test_a_slot_granted_to_a_task_cancelled_in_the_same_turn_goes_to_the_next(resuming: bool) -> None:
    slots = Slots(1)
    await slots.acquire()
    first = asyncio.create_task(slots.acquire(resuming=resuming))
    second = asyncio.create_task(slots.acquire())
    await settled()
    slots.release()  # granted to the first ...
    first.cancel()  # ... which never learns of it
    await second
    assert first.cancelled()
    slots.release()
    assert slots.free == 1


async def test_a_slot_handed_over_is_never_seen_as_free() -> None:
    seen: list[int] = []
    slots = Slots(1, on_change=lambda: seen.append(slots.free))
    await slots.acquire()
    waiter = asyncio.create_task(slots.acquire())
    await settled()
    slots.release()
    assert (slots.free, seen) == (0, [])
    await waiter
    slots.release()
    assert (slots.free, seen) == (1, [1])


async def test_lifted_slots_let_resuming_tasks_through_and_are_paid_back() -> None:
    slots = Slots(1)
    await slots.acquire()
    resuming = asyncio.create_task(slots.acquire(resuming=True))
    new = asyncio.create_task(slots.acquire())
    await settled()
    slots.lift()
    await resuming
    await slots.acquire(resuming=True)
    assert (slots.free, new.done()) == (0, False)
    for _ in range(2):
        slots.release()
        await settled()
        assert not new.done()
    slots.release()
    await new
    slots.release()
    assert slots.free == 1


async def test_a_pool_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="-c 1"):
        Slots(0)


async def test_a_lent_slot_is_free_for_others_inside_the_block_only() -> None:
    slots = Slots(1)
    await slots.acquire()
    slot = Slot(slots)
    async with slot.released():
        assert (slots.free, slot.held) == (1, False)
    assert (slots.free, slot.held) == (0, True)


async def test_lending_twice_and_retaking_twice_counts_once() -> None:
    slots = Slots(1)
    await slots.acquire()
    slot = Slot(slots)
    slot.yield_()
    slot.yield_()
    assert slots.free == 1
    await asyncio.gather(slot.retake(), slot.retake())
    assert slots.free == 0
    slot.close()
    slot.close()
    assert slots.free == 1


async def test_child_tasks_that_retake_together_take_one_slot() -> None:
    slots = Slots(2)
    await slots.acquire()
    await slots.acquire()
    slot = Slot(slots)
    slot.yield_()
    await slots.acquire()  # somebody else has it now
    both = asyncio.gather(slot.retake(), slot.retake())
    await settled()
    assert slots.waiting == 1
    slots.release()
    await both
    assert (slots.free, slots.waiting) == (0, 0)


async def test_a_retake_that_is_cancelled_leaves_the_slot_to_others() -> None:
    slots = Slots(1)
    await slots.acquire()
    slot = Slot(slots)
    slot.yield_()
    await slots.acquire()
    retaking = asyncio.create_task(slot.retake())
    await settled()
    slots.release()
    retaking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await retaking
    slot.close()
    assert slots.free == 1


async def test_a_child_task_that_outlives_the_body_takes_no_slot() -> None:
    slots = Slots(1)
    await slots.acquire()
    slot = Slot(slots)
    slot.yield_()
    await slots.acquire()
    orphan = asyncio.create_task(slot.retake())
    await settled()
    slot.close()
    slots.release()
    await orphan
    assert slots.free == 1
    await slot.retake()
    assert slots.free == 1


async def test_the_slot_is_held_again_after_a_failure_in_the_block() -> None:
    slots = Slots(1)
    await slots.acquire()
    slot = Slot(slots)
    with pytest.raises(ZeroDivisionError):
        async with slot.released():
            raise ZeroDivisionError
    assert slot.held


async def test_a_suspect_waits_for_its_share_and_nobody_new_overtakes_it() -> None:
    slots = Slots(4)
    for _ in range(4):
        await slots.acquire()
    suspect, other = Slot(slots), Slot(slots)
    wide = asyncio.create_task(suspect.widen(lambda limit: limit, patience_seconds=60))
    await settled()
    new = asyncio.create_task(slots.acquire())
    other.yield_()
    await settled()
    assert (wide.done(), new.done(), slots.free) == (False, False, 0)
    for _ in range(2):
        slots.release()
    assert await wide
    assert not new.done()
    suspect.narrow()
    await new
    assert slots.free == 2
    suspect.close()
    slots.release()
    assert slots.free == 4


async def test_a_suspect_that_cannot_have_its_share_in_time_gives_its_slot_back() -> None:
    slots = Slots(3)
    await slots.acquire()
    await slots.acquire()
    suspect = Slot(slots)
    assert not await suspect.widen(lambda limit: limit, patience_seconds=0.01)
    assert not suspect.held
    suspect.close()
    assert slots.free == 2


async def test_a_suspect_that_lends_its_share_has_all_of_it_again() -> None:
    slots = Slots(3)
    await slots.acquire()
    suspect = Slot(slots)
    assert await suspect.widen(lambda limit: limit, patience_seconds=1)
    async with suspect.released():
        assert slots.free == 3
    assert slots.free == 0
