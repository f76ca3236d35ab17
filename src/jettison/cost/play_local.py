"""Plays a schedule to a model in this process: one server, first come first served.

No second thread sends the requests: a request that is due while the model works is taken up when
that work ends, which is what a queue in front of it does. Latency counts from when it was due.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from jettison.cost.calls import Calls

SPIN_S = 0.0003
"""The last stretch before a request is due is waited for with open eyes: sleeping is too coarse."""
QUEUE_TIMEOUT = "it waited in the queue longer than the time-out"


def play_local(
    predict: Callable[[Sequence[Any]], Sequence[Any]],
    inputs: Sequence[Any],
    rows: Sequence[int],
    due_s: Sequence[float],
    *,
    max_batch: int = 1,
    timeout_s: float = 30.0,
    children_time_s: Callable[[], float] = lambda: 0.0,
) -> Calls:
    """Answer requests as they fall due.

    Args:
        predict: The model: a batch of inputs to outputs with `label` and `error`.
        inputs: What can be asked.
        rows: Which input each request asks, shape (n,).
        due_s: When each is due, ascending, shape (n,).
        max_batch: The most waiting requests that the model takes at once.
        timeout_s: A request that has waited so long when its turn comes is dropped as a miss.
        children_time_s: Clock of the CPU-seconds of processes that the model has started.

    Returns:
        One row a request.
    """
    n = len(rows)
    sent, late, done = [0.0] * n, [0.0] * n, [0.0] * n
    errors: list[str | None] = [None] * n
    outputs: list[str | None] = [None] * n
    first: list[float | None] = [None] * n
    read: list[int | None] = [None] * n
    written: list[int | None] = [None] * n
    n_escalated = 0
    clock = time.perf_counter
    cpu_s = busy_s = free_s = 0.0
    cpu_time_s = time.process_time
    whole_cpu_from, children_from = cpu_time_s(), children_time_s()
    started = clock()
    head = 0
    while head < n:
        _wait_until(started + due_s[head])
        now = clock() - started
        if now - due_s[head] > timeout_s:
            sent[head] = done[head] = now
            errors[head] = QUEUE_TIMEOUT
            head += 1
            continue
        tail = head + 1
        while tail < n and tail - head < max_batch and due_s[tail] <= now:
            tail += 1
        cpu_from = cpu_time_s()
        answers = predict([inputs[row] for row in rows[head:tail]])
        end = clock() - started
        cpu_s += cpu_time_s() - cpu_from
        for index, answer in zip(range(head, tail), answers, strict=True):
            sent[index], done[index] = now, end
            # Before it was due, or while the model worked, nobody could have sent it.
            late[index] = max(0.0, now - max(due_s[index], free_s)) if index == head else 0.0
            n_escalated += answer.escalated
            if answer.cost is not None:
                read[index], written[index] = answer.cost.prompt_tokens, answer.cost.completion_tokens
                # Of several at once nobody tells when each one's own work began.
                if tail - head == 1 and answer.cost.first_token_s is not None:
                    first[index] = now + answer.cost.first_token_s
            errors[index], outputs[index] = answer.error, None if answer.error else answer.label
        busy_s += end - now
        free_s = end
        head = tail
    wall_s, client_cpu_s = clock() - started, cpu_time_s() - whole_cpu_from - cpu_s
    return Calls(
        rows=list(rows),
        due_s=list(due_s),
        sent_s=sent,
        late_s=late,
        done_s=done,
        first_s=first,
        errors=errors,
        outputs=outputs,
        prompt_tokens=read,
        completion_tokens=written,
        n_escalated=n_escalated,
        payload_bytes=[0] * n,
        cpu_s=cpu_s + children_time_s() - children_from,
        client_cpu_s=max(0.0, client_cpu_s),
        busy_s=busy_s,
        wall_s=wall_s,
    )


def _wait_until(moment: float) -> None:
    left = moment - time.perf_counter()
    if left > SPIN_S:
        time.sleep(left - SPIN_S)
    while time.perf_counter() < moment:
        pass
