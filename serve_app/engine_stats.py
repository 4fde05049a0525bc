"""The engine's latest word on itself. vLLM loads `StatLogger` through its `vllm.stat_logger_plugins` entry point."""

from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from serve_app.engine_report import EngineStats

_latest = EngineStats()


def latest() -> EngineStats:
    """Of this process's engine. An engine that has not stepped yet has nothing running: all zeros."""
    return _latest


class StatLogger(StatLoggerBase):  # type: ignore[misc]
    """vLLM calls `record` after each engine step, and once more when the last request has left."""

    def __init__(self, vllm_config: Any, engine_index: int = 0):
        del vllm_config, engine_index

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        global _latest
        if scheduler_stats is not None:
            waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            _latest = EngineStats(scheduler_stats.num_running_reqs, waiting, scheduler_stats.kv_cache_usage)

    def log_engine_initialized(self) -> None:
        pass
