import numpy as np
import pytest

from common.config import ModelConfig
from common.emotions import EMOTIONS_7, EMOTIONS_8
from models.class_counts import BASE, FER2013, FERPLUS, as_metrics, counts_in
from tests.publishing import facts_of_round


def test_counts_go_through_a_manifests_metrics_and_come_back_in_the_order_of_its_classes() -> None:
    facts = facts_of_round(1, metrics={"accuracy": 0.5} | as_metrics(FER2013), model=ModelConfig(classes=EMOTIONS_7[::-1]))
    found = counts_in(facts.metrics, facts.model.classes)
    assert found is not None
    assert found.tolist() == [FER2013[name] for name in EMOTIONS_7[::-1]]
    assert facts.metrics["faces/disgust"] == 435.0


@pytest.mark.parametrize("metrics", [{}, {"accuracy": 0.5}, as_metrics(FER2013), as_metrics(FERPLUS | {"contempt": 0.0})])
def test_nothing_is_told_of_classes_of_which_one_has_no_count(metrics: dict[str, float]) -> None:
    assert counts_in(metrics, EMOTIONS_8) is None


def test_the_public_tables_have_as_many_faces_as_the_data_sets() -> None:
    assert sum(FER2013.values()) == 28_561
    assert np.isclose([sum(FERPLUS.values()), sum(BASE.values())], [25_060, 28_416], atol=1).all()
