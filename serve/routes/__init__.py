"""The interfaces, one file each: a function from ``Server`` to a FastAPI router.

A new interface is one file here and one line in ``ROUTERS``.
"""

from __future__ import annotations

from serve.routes import explain, feedback, mlflow, openai, page, tei, v2, vllm

ROUTERS = (
    tei.router,
    openai.router,
    vllm.router,
    v2.router,
    mlflow.router,
    explain.router,
    feedback.router,
    page.router,
)
