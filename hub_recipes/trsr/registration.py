"""Makes the pipeline task known to transformers, with the recommender inside the package as its default."""

from trsr.assets.paths import NANO, TASK
from trsr.core.modeling import TextRichRecommender


def register() -> None:
    """Register the task; its default model is the nano recommender that ships with the package."""
    from transformers.pipelines import PIPELINE_REGISTRY  # here: after a reload it is another one

    # As transformers registers its own: the class by name, imported when the task is used. `register_pipeline` wants the
    # class itself, which may be what is being imported right now.
    PIPELINE_REGISTRY.supported_tasks[TASK] = {
        "impl": "trsr.core.pipeline.TextRichRecommendationPipeline",
        "pt": (TextRichRecommender,),
        "default": {"model": (str(NANO / "pipeline"), "main")},
        "type": "text",
    }
