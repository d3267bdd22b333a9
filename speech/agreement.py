"""Workers that are to train one model: whether all of them mean the same one."""

from __future__ import annotations

import hashlib

from speech.config import config_differences, dump_config
from speech.errors import ConfigError
from speech.run import FREE_TO_CHANGE
from speech.task import B, E, RunConfig, Task
from speech.workers import Workers

# Settings that need not be the same for all workers: they may have other paths.
MAY_DIFFER = FREE_TO_CHANGE | {"train.init_from"}


def require_agreement(workers: Workers, config: RunConfig, task: Task[E, B]) -> None:
    """Refuse workers that would not train the same: each lists the batches by itself.

    Raises `ConfigError` on all of them where one's settings or data are not the first one's.
    """
    if workers.size == 1:
        return
    sizes = [task.batch_size(batch) for batch in task.epoch_batches(0)]
    digest = hashlib.sha256(repr(sizes).encode()).hexdigest()
    known = workers.gather((config, digest, task.summary()[0]))
    first, first_digest, summary = known[0]
    for rank, (other, other_digest, other_summary) in enumerate(known):
        if differing := config_differences(dump_config(other), first) - MAY_DIFFER:
            names = ", ".join(sorted(differing))
            raise ConfigError(f"worker {rank} has other settings than the first one: {names}")
        if other_digest != first_digest:
            raise ConfigError(
                f"worker {rank} has other training data than the first one ({other_summary}; "
                f"the first one: {summary}): all need the same manifests"
            )
