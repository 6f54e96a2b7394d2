"""Pipelines of passes: as text, by -O level, and run with the model verified between passes."""

from sparsify.pipeline.levels import DEFAULT_LEVEL, LEVEL_WITH_DATA, TARGETS, level, with_settings
from sparsify.pipeline.run import Pipeline, PipelineReport, Step
from sparsify.pipeline.text import parse, to_text
from sparsify.pipeline.verify import PassError

__all__ = [
    "DEFAULT_LEVEL",
    "LEVEL_WITH_DATA",
    "TARGETS",
    "PassError",
    "Pipeline",
    "PipelineReport",
    "Step",
    "level",
    "parse",
    "to_text",
    "with_settings",
]
