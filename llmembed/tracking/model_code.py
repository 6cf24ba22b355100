"""The script MLflow stores with a logged classifier ("models from code") and runs to load it.

It is copied into the model as it stands, so it holds only what names our package: the work is
done by the installed ``llmembed.tracking.pyfunc``. Run by MLflow, not imported by ours.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class ClassifierModel(PythonModel):
    """Texts in, one row of labels and scores for each text out."""

    def load_context(self, context: Any) -> None:
        from llmembed.tracking.pyfunc import load_classifier

        self.classifier = load_classifier(
            context.artifacts["classifier"], context.artifacts["loader"]
        )

    # MLflow reads these annotations; with others it warns at every load.
    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        from llmembed.tracking.pyfunc import answer

        return answer(self.classifier, model_input, params or {})


set_model(ClassifierModel())
