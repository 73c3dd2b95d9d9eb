"""The inference engine in a Spark task, on the device that Spark assigned to the task."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark import TaskContext

from tgq.catalog.reading.location import fetch_options
from tgq.grounding.policy import Policy
from tgq.images.decode import ImageLimits
from tgq.images.permitted import FetchOptions
from tgq.settings.sections import Settings


@dataclass(frozen=True)
class EmbedWorker:
    """Builds the engine of a task. It holds plain values only, so pickling it sends no weights."""

    model_folder: str
    device: str
    dtype: str
    batch_tokens: int
    decode_threads: int
    prefetch_mb: int
    fetch: FetchOptions
    limits: ImageLimits
    compiled: bool = False
    output_tower_features: bool = False
    grounding: Policy | None = None  # grounds rows with a phrase

    @classmethod
    def of(cls, settings: Settings, model_folder: str, catalog_folder: str | None) -> EmbedWorker:
        """The worker for these settings; pictures may be read from `catalog_folder` and `images.allowed_roots`."""
        images = settings.images
        return cls(
            model_folder=model_folder,
            device=settings.encoder.device,
            dtype=settings.encoder.dtype,
            batch_tokens=settings.embed.batch_tokens,
            decode_threads=settings.embed.decode_threads,
            prefetch_mb=settings.embed.prefetch_mb,
            fetch=fetch_options(catalog_folder, images),
            limits=ImageLimits(max_bytes=images.max_bytes, max_pixels=images.max_pixels),
            compiled=settings.embed.compile,
        )  # fmt: skip

    def engine(self):
        """The engine; the encoder is loaded once per process."""
        from tgq.images.fetch import Fetcher
        from tgq.inference.engine import EmbeddingEngine, EngineOptions

        cores = task_cores()
        options = EngineOptions(
            batch_tokens=self.batch_tokens,
            prefetch_bytes=self.prefetch_mb * 2**20,
            decode_threads=self.decode_threads or cores,
            model_threads=cores,
            limits=self.limits,
            output_tower_features=self.output_tower_features,
        )
        return EmbeddingEngine(self.encoder(), Fetcher(self.fetch).read, options, self.grounder(cores))

    def grounder(self, threads: int):
        """The grounder with its detector, which is loaded once per process; None without grounding."""
        if self.grounding is None:
            return None
        from tgq.grounding.opening import open_detector
        from tgq.inference.grounder import Grounder

        return Grounder(open_detector(self.grounding, self.encoder(), threads), self.grounding.threshold, self.grounding.margin)

    def encoder(self):
        """The encoder on the task's device, loaded once per process."""
        from tgq.inference.machine import keep_freed_memory
        from tgq.registry.loading import load_encoder

        keep_freed_memory()
        return load_encoder(self.model_folder, task_device(self.device, TaskContext.get()), self.dtype, self.compiled)


def task_cores() -> int:
    """The cores of this task; 1 outside of Spark."""
    context = TaskContext.get()
    return context.cpus() if context else 1


def task_device(wanted: str, context: TaskContext | None) -> str:
    """The GPU that Spark assigned to this task, if it did and `wanted` is not cpu; otherwise `wanted`."""
    gpu = context.resources().get("gpu") if context else None
    return f"cuda:{gpu.addresses[0]}" if gpu and wanted != "cpu" else wanted
