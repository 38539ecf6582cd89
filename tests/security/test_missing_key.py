"""A worker that was started before there were keys meets a run that it cannot read: it does not fail it."""

from __future__ import annotations

from pathlib import Path

from crowd import Crowd, crowd_in, wait_until

from polos import PolosClient
from polos.encryption import new_key
from polos.settings import Settings


def test_a_run_that_cannot_be_read_here_goes_back_to_the_queue(tmp_path: Path, valkey_url: str) -> None:
    with crowd_in(tmp_path, valkey_url, POLOS_RING_AGAIN_SECONDS="0.2") as crowd:
        settings = Settings.from_environment(crowd.environment)
        settings = settings.with_values(embedded_worker="0", encryption_keys=new_key("k1"))
        with PolosClient(settings=settings).sync as client:
            run_id = client.invoke("pay", {"to": "eve"}).id
            wait_until(lambda: crowd.log.count("encrypted with key 'k1'") >= 2)
            found = client.get_execution(run_id)
        assert found["completed_at"] is None
        assert found["status"] not in {"failed", "cancelled", "completed"}
        assert "paid eve" not in crowd.ledger
        _is_told_what_to_do(crowd)


def _is_told_what_to_do(crowd: Crowd) -> None:
    assert crowd.worker.poll() is None
    assert "set POLOS_ENCRYPTION_KEYS as the workers have it" in crowd.log
