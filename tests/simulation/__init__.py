"""A simulated kernel for the data plane, and scenarios that it decides by chance.

The relay runs as it is: worker, reactor, ring, flows, the asyncio loop. What it takes from a kernel
(`uproxy.dataplane.kernel`) comes from here. A scenario is drawn from a seed, and so is all that a
kernel, a network, clients, backends and the control process may decide; so a seed replays exactly.

    make simulate SEEDS=100000             on all processors, until the first that fails
    make simulate SEED=123 MODE=ring       one again, with its trace
    make simulate-mutations                defects put back: within how many seeds each is noticed

Where things are:

| | |
|---|---|
| `world` | time, chance, events, the trace; `Fault` says what may go wrong |
| `files` | open files and descriptors, of which a number is used again at once |
| `streams`, `datagrams`, `pipes`, `epolls` | TCP, UDP, splice and epoll, as Linux has them |
| `rings`, `ring_operations` | io_uring, over the memory that the data plane shares with it |
| `sockets`, `machine` | all of these as Python sees them, and event loops that wait for them |
| `network`, `peers`, `backends`, `udp_peers` | who is reached where, and what they do |
| `scenario`, `drawing`, `crowds` | what a seed stands for |
| `simulation`, `control` | one run of it, with the control process |
| `invariants`, `udp_invariants`, `headers` | what must hold |
| `mutations`, `mutate`, `evidence` | defects, put back to see that they are noticed |

A mode says what moves the bytes: `ring` (io_uring, and epoll for flows that leave it), `epoll`,
`splice`, which is then used from the first byte on, or `udp`, by either. A fault is rare in most
scenarios and frequent in some; many have none at all, and there everything has to arrive
(`Scenario.gentle`).
"""
