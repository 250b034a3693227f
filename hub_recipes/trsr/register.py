"""Makes the pipeline task known to transformers, with the recommender inside the package as its default."""

from transformers.pipelines import PIPELINE_REGISTRY

from trsr.core.modeling import TextRichRecommender
from trsr.core.pipeline import TASK, TextRichRecommendationPipeline
from trsr.embedded import NANO


def register() -> None:
    """Register the task; its default model is the nano recommender that ships with the package."""
    PIPELINE_REGISTRY.register_pipeline(
        TASK,
        TextRichRecommendationPipeline,
        pt_model=TextRichRecommender,
        default={"model": (str(NANO / "pipeline"), "main")},
        type="text",
    )
