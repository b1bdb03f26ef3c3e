"""io_uring(7) from Python, as a library of its own: it knows nothing of the rest of uproxy.

An io_uring is a pair of queues in memory that a process shares with the kernel. The process writes
operations into one and reads their results from the other, and a single system call,
io_uring_enter(2), is enough for many operations on many sockets. `Ring` (ring.py) is what users of
this package deal with; `RingLoop` (loop.py) is an asyncio event loop that waits for a ring.

Glossary. The words are those of the man pages, of io_uring.h and of liburing; constants drop the
IORING_ of their C names.

    SQ, SQE        the submission queue, and its entries: an operation each (drawn in abi.py)
    CQ, CQE        the completion queue, and its entries: user_data, a result (res) and flags
    completion     result and flags of a CQE packed into one int, for callbacks (drawn in abi.py)
    user_data      64 bits of an SQE that each of its CQEs returns: here, the callback
    multishot      a receive that goes on: one SQE, and a CQE for each message. It is over with the
                   first CQE that lacks CQE_F_MORE: after an error, an end of the stream, a lack of
                   buffers or of room in the CQ. It then has to be queued again
    buffer ring    provided buffers: the kernel chooses one for each message, and the CQE has its
                   buffer id (bid). A ring of them is a group, with a group id (bgid)
    to queue       to write an SQE. The kernel does not know of it yet
    to submit      to have the kernel take what is queued. Now it looks up descriptors and memory
    task work      what the kernel does for an operation whose socket has become ready. It is put
                   off until the process calls and asks for it (DEFER_TASKRUN, GETEVENTS)
    turn           one `submit_and_wait`: submit, wait for a CQE, call back for all there are
    decided        said of a send after the turn that has submitted it. Sends never wait in the
                   kernel, so it is known by then how much of each was sent

Linked SQEs, bundles, registered files and SQPOLL are not used.

An echo of one message (tests/uring/test_package.py runs it):

    >>> import socket
    >>> from uproxy.uring.abi import CQE_BUFFER_SHIFT, CQE_RES, USER_DATA_SEND
    >>> from uproxy.uring.ring import Ring
    >>> ring = Ring()
    >>> ring.recv_limit_supported = False  # As before Linux 6.17: a receive for each message.
    >>> near, far = socket.socketpair()
    >>> def arrived(completion: int) -> None:
    ...     bid, count = completion >> CQE_BUFFER_SHIFT, completion & CQE_RES
    ...     ring.send(near.fileno(), user_data | USER_DATA_SEND, bid, count)
    >>> user_data = ring.add_callback(arrived)
    >>> ring.recv(near.fileno(), user_data)
    >>> far.send(b"hello")
    5
    >>> ring.submit_and_wait(1)  # Submits the receive, and calls `arrived`: the answer is queued.
    >>> ring.submit_and_wait(0)  # Submits the answer. No CQE says so, as all of it was sent.
    >>> far.recv(100)
    b'hello'
    >>> for each in (ring, near, far):
    ...     each.close()

Linux versions. Before 6.1, or where a seccomp profile or the sysctl kernel.io_uring_disabled
refuses the calls, `Ring` raises OSError.

    5.17    IOSQE_CQE_SKIP_SUCCESS: sends complete only when they have failed
    5.18    SETUP_SUBMIT_ALL: an SQE that is refused does not hold up those behind it
    5.19    buffer rings, RECVSEND_POLL_FIRST, SQ_TASKRUN
    6.0     multishot recv and recvmsg, SETUP_SINGLE_ISSUER
    6.1     SETUP_DEFER_TASKRUN
    6.17    multishot recv that ends after a number of bytes. Without it, `Ring.recv` receives one
            message at a time
"""
