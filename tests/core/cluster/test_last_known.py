"""A state that is served as a whole from the last-known state, before its sources have listed."""

from __future__ import annotations

from tests.builders import service
from uproxy.core.cluster.state import ClusterState


def test_presumed_is_servable_but_not_synced() -> None:
    state = ClusterState(["api"])
    assert not state.servable
    state.apply("api", service("web"))
    state.accept_last_known("api")
    assert (state.servable, state.synced) == (True, False)
    state.replace("api", [])
    assert (state.servable, state.synced) == (True, True)
    assert state.service_names() == set()


def test_every_source_has_to_be_presumed_or_synced() -> None:
    state = ClusterState(["api", "files"])
    state.accept_last_known("api")
    assert not state.servable
    state.sync("files")
    assert (state.servable, state.synced) == (True, False)


def test_objects_of_all_sources() -> None:
    state = ClusterState(["api", "files"])
    web, dns = service("web"), service("dns")
    state.apply("api", web)
    state.apply("files", dns)
    assert state.all_objects() == [web, dns]
    state.all_objects().clear()
    assert state.all_objects() == [web, dns]


def test_what_a_source_has_delivered_already() -> None:
    state = ClusterState(["api", "files"])
    web = service("web")
    state.apply("api", web)
    assert list(state.new_or_changed("api", [web, service("dns")])) == [service("dns")]
    assert list(state.new_or_changed("files", [web])) == [web]
