"""Defects of the control process, which runs with injected faults must notice."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutate import put_in
from tests.simulation.mutation import Change, Mutation


def _one(name: str, says: str, module: str, old: str, new: str) -> Mutation:
    return Mutation(name, says, (Change(module, old, new),))


ALL: Final = (
    _one(
        "derive-raises",
        "a Service whose routes cannot be derived keeps all others from being served",
        "core.routing.build",
        "        except Exception as error:\n            # An error that",
        "        except ZeroDivisionError as error:\n            # An error that",
    ),
    _one(
        "derive-once",
        "a Service whose routes could not be derived is not tried again",
        "control.table_builder",
        "mark_dirty(self.table.underived)",
        "mark_dirty(())",
    ),
    _one(
        "take-in-once",
        "an object that could not be processed is forgotten",
        "control.state_updater",
        "        self._refused[identity] = _Refused(obj, reason)\n",
        "",
    ),
    _one(
        "health-checks-once",
        "a health check node port that was taken is not tried again",
        "control.reconciler",
        "            self._health_check_retry,\n",
        "",
    ),
    _one(
        "recovered-if-opened",
        "a frontend that could not be paused, and is wanted again, stays failed for ever",
        "control.reconciler",
        "self._retries.opened(attempted - failed.keys())",
        "self._retries.opened({route.frontend for route in (*steps.open, *steps.resume)}"
        " - failed.keys())",
    ),
    _one(
        "retry-late",
        "a frontend that has failed is tried again only when something else happens",
        "control.reconciler",
        "earliest(self._retries.next_due(), *(each.at for each in retries))",
        "earliest(*(each.at for each in retries))",
    ),
    _one(
        "partly-paused-is-paused",
        "a listener counts as paused although only some of its sockets could be paused",
        "control.listeners",
        "            listener.partly_paused = True\n            try:\n",
        "            listener.paused = True\n            try:\n",
    ),
    _one(
        "leak-at-open",
        "the sockets of a frontend that could not be opened stay open",
        "net.listening",
        "    except OSError as error:\n        for sock in sockets:\n            sock.close()\n"
        "        raise ListenError",
        "    except OSError as error:\n        raise ListenError",
    ),
    _one(
        "leak-at-start",
        "our end of the channel stays open when a worker cannot be started",
        "control.workers.process",
        "    except BaseException:\n        ours.close()\n        raise\n",
        "    except BaseException:\n        raise\n",
    ),
    _one(
        "deaf-to-hanging",
        "a worker that hangs is not replaced",
        "control.workers.supervision",
        "                    worker.give_up(worker.liveness.reason_to_replace)\n",
        "                    pass\n",
    ),
    _one(
        "deaf-to-unserved",
        "a worker is not sent again what it could not receive",
        "control.workers.supervision",
        "                worker.tell(opening, sock)\n\n    async def _watch",
        "                pass\n\n    async def _watch",
    ),
    _one(
        "short-of-memory",
        "what the kernel had no memory for is not sent again",
        "control.workers.worker",
        "            self._retry = asyncio.get_running_loop().call_later(_RETRY, self._send)\n",
        "",
    ),
    _one(
        "overtaken",
        "a worker is told to open a frontend that was closed before the message could be sent",
        "control.workers.outbox",
        "                self._waiting.pop((frontend, Open), None)\n",
        "",
    ),
    _one(
        "spawn-raises",
        "a worker that cannot be started ends everything",
        "control.workers.supervision",
        '            except Exception as error:\n                log.exception("worker %d:',
        '            except ZeroDivisionError as error:\n                log.exception("worker %d:',
    ),
    _one(
        "claims-for-good",
        "a lack of descriptors at the start means that no address is ever claimed",
        "host.claims",
        "refused is not None and refused.errno != errno.EPERM",
        "isinstance(refused, Locked)",
    ),
    _one(
        "claims-left-over",
        "an address that could not be released stays claimed",
        "host.claims",
        "        if self._left_over:\n            async",
        "        if None:\n            async",
    ),
    _one(
        "claim-once",
        "an address that has left its interface and could not be claimed is not tried again",
        "control.reconciler",
        "        return self._out_of_reach(unclaimed) | failed\n",
        "        return failed\n",
    ),
    _one(
        "silent-watch",
        "a watch that has gone silent is never replaced",
        "sources.kubernetes.watch_stream",
        "        if began + self._longest < heard + timing.silence:",
        "        if True:",
    ),
    _one(
        "tasks-end",
        "an exception ends the task in which it is raised, and all others",
        "control.task_supervisor",
        "                why = unexpected(error)\n",
        "                raise\n",
    ),
    _one(
        "addresses-end",
        "if addresses cannot be read, the machine monitor ends",
        "control.machine",
        "        except Exception as error:\n            self.trouble =",
        "        except ZeroDivisionError as error:\n            self.trouble =",
    ),
    _one(
        "bridge-flushed",
        "what another program removes from the rules for bridges is not restored",
        "control.bridge_diversion",
        "                if not intact:\n",
        "                if False:\n",
    ),
    _one(
        "bridge-address",
        "a bridge that gets another address is not noticed",
        "control.bridged_backends",
        "        if ranges == self._ranges:\n",
        "        if self._ranges:\n",
    ),
    _one(
        "bridge-once",
        "rules for bridges that could not be changed are not tried again",
        "control.bridge_diversion",
        "        try:\n            await run_to_completion(self._rules.divert,",
        "        if before:\n            return\n        try:\n"
        "            await run_to_completion(self._rules.divert,",
    ),
    _one(
        "bridge-backend",
        "backends of a Service that has changed are not diverted",
        "control.bridged_backends",
        "if before.get(name) is not found]",
        "if name not in before]",
    ),
    _one(
        "pods-raise",
        "if routes cannot be read, this node's pods are no longer looked for",
        "control.local_pods",
        "            self._trouble = str(error)\n            return\n",
        "            await asyncio.Event().wait()\n",
    ),
    _one(
        "status-once",
        "the status of a Service that could not be written is not tried again",
        "control.load_balancer.status_writer",
        "self._later(name, status, status.retry.failed(time.monotonic(), random.random()))",
        "pass",
    ),
    _one(
        "lead-once",
        "who has lost the Lease does not hand out addresses again",
        "control.load_balancer.allocation",
        "        self._decided = deciding\n        return deciding\n",
        "        self._decided = deciding\n        self._leading = lambda: deciding\n"
        "        return deciding\n",
    ),
)
MUTATIONS: Final = {mutation.name: mutation for mutation in ALL}


def apply(name: str) -> None:
    """Before the control process is imported."""
    put_in(MUTATIONS[name])
