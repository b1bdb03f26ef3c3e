from __future__ import annotations

import asyncio
import threading

import pytest

from tests.http.client import eventually
from uproxy.control.load_balancer.ip_mode import IPModeChoice


@pytest.mark.parametrize("setting", ["VIP", "Proxy"])
async def test_what_is_set_is_known_at_once(setting: str) -> None:
    def look() -> list[str]:
        raise AssertionError("this is not asked for")

    choice = IPModeChoice(setting, look, lambda: None)
    assert (choice.mode, choice.known) == (setting, True)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(choice.run())
        await asyncio.sleep(0)
        task.cancel()
    assert choice.mode == setting


async def test_other_proxies_are_looked_for_again_and_again() -> None:
    found: list[str] = []
    changes: list[str] = []
    threads = set[int]()

    def look() -> list[str]:
        threads.add(threading.get_ident())
        return list(found)

    choice = IPModeChoice("auto", look, lambda: changes.append(choice.mode), period=0.01)
    assert not choice.known
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(choice.run())
        await eventually(lambda: choice.known)
        found.append("kube-proxy in mode ipvs")
        await eventually(lambda: choice.mode == "Proxy")
        found.clear()
        await eventually(lambda: choice.mode == "VIP")
        task.cancel()
    assert changes == ["VIP", "Proxy", "VIP"]
    assert threading.get_ident() not in threads


async def test_a_look_that_fails_holds_up_nothing() -> None:
    def look() -> list[str]:
        raise RuntimeError("no reason")

    changes: list[str] = []
    choice = IPModeChoice("auto", look, lambda: changes.append(choice.mode))
    with pytest.raises(RuntimeError):
        await choice.run()
    assert (choice.known, choice.mode, changes) == (True, "VIP", ["VIP"])
