"""What a process learns about servers is bounded."""

from __future__ import annotations

from polos.models.connections import KEPT, ObservedClient, close_connections, open_connections
from polos.models.recent import Recent


def test_what_was_used_longest_ago_is_forgotten() -> None:
    recent: Recent[str, int] = Recent(2)
    recent["a"], recent["b"] = 1, 2
    assert recent["a"] == 1
    recent["c"] = 3
    assert ("a" in recent, "b" in recent, len(recent)) == (True, False, 2)
    assert recent.get_or_make("b", lambda: 4) == recent.get("b", 0) == 4


async def test_clients_and_refusals_of_thousands_of_keys_are_not_all_kept() -> None:
    pool = open_connections(ObservedClient())
    for number in range(KEPT + 5):
        pool.sdk_clients.get_or_make(number, object)
        pool.chat_only_base_urls[str(number)] = True
        pool.refused_schemas[None, "model", str(number)] = True
    kept = pool.sdk_clients, pool.chat_only_base_urls, pool.refused_schemas
    assert [len(each) for each in kept] == [KEPT] * 3
    await close_connections()
