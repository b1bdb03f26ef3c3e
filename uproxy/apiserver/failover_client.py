"""An API server that may be reached at several addresses, of which some may be dead.

Before a request, the address in use is asked whether it is ready, unless it has answered just now.
If it is not, all addresses are tried in turn, and each gets a short head start before the next one
is tried at the same time (as in RFC 8305). So an address that swallows packets holds up the others
for a second, instead of for as long as a connection attempt lasts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final, NamedTuple, Self

from uproxy.apiserver.access import Access
from uproxy.apiserver.candidates import Candidate, Candidates, ServerAddress
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.credentials import Credentials
from uproxy.apiserver.request import Request, Response
from uproxy.apiserver.unreachable import ApiUnreachable, NoCredentials, as_unreachable
from uproxy.core.brief import brief
from uproxy.core.errors import SourceError
from uproxy.core.report.telemetry import RequestTelemetry

log = logging.getLogger(__name__)

_READY: Final = "/readyz"
"""A server that starts or stops answers 500 there while it still accepts connections. Every user
may ask (ClusterRole system:public-info-viewer); a refusal is an answer, too."""
_MAX_ANSWER: Final = 64 * 1024
_NO_SERVER: Final = (502, 503, 504)
"""A load balancer answers so when there is no API server behind it."""


class Pace(NamedTuple):
    """Times in seconds. Values other than the defaults are for tests."""

    head_start: float = 1.0
    """How long each address is tried alone. A lost SYN is sent again after a second."""
    patience: float = 5.0
    """How long an address may take to say that it is ready."""
    fresh: float = 10.0
    """How long an answer counts. Requests within this time use the address without asking."""


_PACE: Final = Pace()


class _Probe(NamedTuple):
    """What an address has answered to the question whether it is ready."""

    error: ApiUnreachable | None = None
    """Why it is not to be used; None: it is ready."""
    answers: bool = False
    """Whether an API server has answered there, ready or not."""


class FailoverClient:
    """An `ApiServer` at the first of `candidates` that answers. An address is used until it fails.

    Raises SourceError where certificates cannot be used at all.
    """

    def __init__(
        self,
        access: Access,
        candidates: Candidates,
        *,
        relaxed_x509: bool = False,
        requests: RequestTelemetry | None = None,
        pace: Pace = _PACE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`requests`: where what is sent is counted."""
        self._access = access
        self._candidates = candidates
        self._relaxed_x509 = relaxed_x509
        self._requests = requests
        self._pace = pace
        self._clock = clock
        self._credentials = Credentials(access)
        """Shared by the clients of all addresses, so that a plugin is run once for all of them."""
        first = candidates.all[0]
        self._clients = {first: self._new_client(first)}
        self._choosing = asyncio.Lock()
        self._rounds = 0
        """How many times all addresses were tried."""
        self._failure = ApiUnreachable("")
        """Why none has answered in the latest round."""
        self._fresh_until = 0.0
        self._logged: object = None
        """What the latest line of the log was about."""

    @property
    def access(self) -> Access:
        """As of the address that has answered last, or else of the most preferred one."""
        return self._access_at(self._candidates.latest or self._candidates.all[0])

    @property
    def addresses(self) -> Sequence[ServerAddress]:
        """All addresses, in the order of preference."""
        return self._candidates.addresses

    def learn(self, addresses: Sequence[str]) -> bool:
        """Like `Candidates.learn`."""
        return self._candidates.learn(addresses)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close(self._clients)

    async def check_all(self) -> Sequence[ServerAddress]:
        """Ask every address, all at the same time, whether it is ready: for a report. `in_use`
        then means that it is. Raises ApiUnreachable where there are no credentials."""
        await self._check_credentials()
        async with asyncio.TaskGroup() as tasks:
            probes = {each: tasks.create_task(self._probe(each)) for each in self._candidates.all}
        errors = {each: probe.result().error for each, probe in probes.items()}
        return [
            ServerAddress(each.server, each.origin, error is None, reason=str(error or ""))
            for each, error in errors.items()
        ]

    @asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[Response]:
        """Like `ApiClient.send`. A request that fails is not repeated at another address, since it
        may have had its effect; the next request is sent there."""
        candidate = await self._choose()
        async with AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(self._client(candidate).send(request))
            except NoCredentials:
                raise
            except ApiUnreachable as error:
                self._candidates.failed(candidate, str(error))
                raise
            self._fresh_until = 0.0 if response.status in _NO_SERVER else self._until_stale()
            yield response

    async def _choose(self) -> Candidate:
        """The address to send a request to. Raises ApiUnreachable where none answers."""
        before = self._rounds
        async with self._choosing:
            current = self._candidates.current
            if current is not None and self._clock() < self._fresh_until:
                return current
            if current is None and before != self._rounds:
                # This request had to wait for another one, which has just tried all addresses.
                raise ApiUnreachable(str(self._failure), refused=self._failure.refused)
            return await self._try_all()

    async def _try_all(self) -> Candidate:
        await self._check_credentials()
        errors: dict[Candidate, ApiUnreachable] = {}
        chosen = await self._first_ready(self._candidates.in_turn(), errors)
        self._rounds += 1
        if chosen is None:
            self._failure = self._none_answers(errors)
            raise self._failure
        self._candidates.answered(chosen)
        self._fresh_until = self._until_stale()
        self._log_choice(chosen)
        # The watches at other addresses end now, and are resumed at this one. Those at an address
        # that has died would otherwise notice that after a minute.
        await self._close([each for each in self._clients if each != chosen])
        return chosen

    async def _check_credentials(self) -> None:
        """Without credentials no address would answer, and none of them is to blame."""
        with as_unreachable(()):
            await self._credentials.header()
            await self._credentials.certificate()

    async def _first_ready(
        self, candidates: Sequence[Candidate], errors: dict[Candidate, ApiUnreachable]
    ) -> Candidate | None:
        """The first address that is ready; else the first at which any server answers. Says in
        `errors` why the others are not used."""
        to_try, answering = list(candidates), list[Candidate]()
        async with asyncio.TaskGroup() as tasks:
            running: dict[asyncio.Task[_Probe], Candidate] = {}
            try:
                # An address that has failed is tried again while others are awaited, but those
                # attempts are not awaited: they could follow each other for ever.
                while len(errors) < len(candidates):
                    if to_try:
                        candidate = to_try.pop(0)
                        running[tasks.create_task(self._probe(candidate))] = candidate
                    done, _ = await asyncio.wait(
                        running,
                        timeout=self._pace.head_start,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    for task in done:
                        candidate, probe = running.pop(task), task.result()
                        if probe.error is None:
                            slower = candidates[: candidates.index(candidate)]
                            for each in set(slower) & set(running.values()):
                                self._note(each, self._too_slow(), errors)
                            return candidate
                        self._note(candidate, probe.error, errors)
                        if probe.answers:
                            answering.append(candidate)
                    if not (done or to_try):
                        # The others are silent. A server that was restarted meanwhile should be
                        # noticed before the attempts at those time out.
                        if answering:
                            break
                        trying = running.values()
                        to_try = [each for each in errors if each not in trying]
            finally:
                for task in running:
                    task.cancel()
        return answering[0] if answering else None

    def _note(
        self,
        candidate: Candidate,
        error: ApiUnreachable,
        errors: dict[Candidate, ApiUnreachable],
    ) -> None:
        errors[candidate] = error
        self._candidates.failed(candidate, str(error))

    async def _probe(self, candidate: Candidate) -> _Probe:
        patience = self._pace.patience
        request = Request("GET", _READY, answer_timeout=patience, read_timeout=patience)
        try:
            async with asyncio.timeout(patience), self._client(candidate).send(request) as response:
                status = response.status
                # The connection can be used for the next request when the answer has been read.
                await response.read(_MAX_ANSWER)
        except TimeoutError:
            return _Probe(ApiUnreachable("no answer in time"))
        except ApiUnreachable as error:
            return _Probe(error)
        if status == 401:
            # This one server may lack the key of the tokens, or the webhook that knows them. If all
            # of them refuse, the first is used, and its answers to requests say so.
            return _Probe(ApiUnreachable("the credentials are refused (HTTP 401)"), True)
        if status < 500:
            return _Probe()
        return _Probe(ApiUnreachable(f"not ready (HTTP {status})"), status not in _NO_SERVER)

    def _too_slow(self) -> ApiUnreachable:
        return ApiUnreachable(f"no answer within {self._pace.head_start:g} s")

    def _none_answers(self, errors: Mapping[Candidate, ApiUnreachable]) -> ApiUnreachable:
        """Why no address can be used. The reasons are in the order of preference, so that the same
        ones make the same text, which is logged once."""
        refused = all(each.refused for each in errors.values())
        known = [each for each in self._candidates.all if each in errors]
        if len(known) == 1:
            return ApiUnreachable(str(errors[known[0]]), refused=refused)
        reasons = "; ".join(f"{each.address}: {errors[each]}" for each in known)
        text = brief(f"no address of the API server answers: {reasons}")
        return ApiUnreachable(text, refused=refused)

    def _log_choice(self, chosen: Candidate) -> None:
        failures = self._candidates.failures.items()
        others = "; ".join(f"{each.address} ({each.origin}): {why}" for each, why in failures)
        if (chosen, others) != self._logged:
            self._logged = chosen, others
            text = f"; not usable: {brief(others)}" if others else ""
            log.info("using the API server %s, from %s%s", chosen.server, chosen.origin, text)

    def _until_stale(self) -> float:
        return self._clock() + self._pace.fresh

    def _access_at(self, candidate: Candidate) -> Access:
        return replace(
            self._access,
            server=candidate.server,
            tls_server_name=candidate.tls_server_name,
        )

    def _client(self, candidate: Candidate) -> ApiClient:
        """The client of an address. Raises ApiUnreachable where certificates cannot be used."""
        client = self._clients.get(candidate)
        if client is None:
            try:
                client = self._clients[candidate] = self._new_client(candidate)
            except SourceError as error:
                raise NoCredentials(str(error), refused=True) from None
        return client

    def _new_client(self, candidate: Candidate) -> ApiClient:
        return ApiClient(
            self._access_at(candidate),
            relaxed_x509=self._relaxed_x509,
            requests=self._requests,
            credentials=self._credentials,
        )

    async def _close(self, candidates: Iterable[Candidate]) -> None:
        for each in list(candidates):
            await self._clients.pop(each).close("another address is used now")
