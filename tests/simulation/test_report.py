import json
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from common.canonical import encode
from common.config import make_config
from common.errors import RunError
from models.evaluate import judge
from simulation.population import make_population
from simulation.report import Findings, Scores, score_test, summarise, summary_table
from simulation.run import RunFolder
from simulation.synthetic_faces import draw_faces


def test_a_class_without_a_test_face_has_no_recall(tmp_path: Path) -> None:
    config = make_config({"data": {"drawn": 100, "clients": 2}, "upload": {"secure": False}})
    (tmp_path / "config.json").write_bytes(encode({"run": "run", "config": config.model_dump(mode="json")}))
    record = {"round": 1, "asked": 2, "accepted": 2, "seconds": 1.0, "epsilon": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    logits, targets = np.eye(7, dtype=np.float32)[[0, 1, 1]], np.eye(7, dtype=np.float32)[[0, 1, 2]]
    findings = Findings(Scores(judge(logits, targets), 0.5, 0.5), None, np.full(2, np.nan), np.ones((2, 7), np.int64))
    summary = summarise(RunFolder(tmp_path), make_population(config.data, config.model, config.seed), findings)
    written = json.loads((tmp_path / "summary.json").read_text())["test_recall"]
    assert list(written.values()) == [1.0, 1.0, 0.0, None, None, None, None]
    assert summary["test_recall"] == written
    assert summary_table(summary).row_count


def test_a_model_whose_weights_grew_without_bound_is_one_sentence() -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(7))
    score_test(model, draw_faces(7, seed=0))
    nn.init.constant_(model[1].weight, float("nan"))
    with pytest.raises(RunError, match=r"not finite numbers.*--server-lr"):
        score_test(model, draw_faces(7, seed=0))
