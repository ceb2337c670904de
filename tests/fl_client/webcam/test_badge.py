from typing import Literal

import pytest

from fl_client.webcam.badge import Badge, Tone, badge_of, devices_of
from models.manifest import Cohort, Manifest, PrivacyStatement
from tests.publishing import facts_of_round


def promise(unit: Literal["record", "client"], epsilon: float) -> PrivacyStatement:
    return PrivacyStatement.guaranteed(
        unit=unit, epsilon=epsilon, delta=1e-5, accountant="rdp", clipping_norm=1.0, noise_source="the operating system"
    )


NONE = PrivacyStatement.absent("all training")


def badge(privacy: PrivacyStatement, client: PrivacyStatement | None = None) -> Badge:
    return badge_of(Manifest.model_construct(**dict(facts_of_round(1, privacy=privacy, client_privacy=client))))


@pytest.mark.parametrize(
    ("privacy", "client", "lines", "tone"),
    [
        (promise("record", 7.934), None, ("record-level epsilon 7.94",), Tone.PRIVATE),
        (
            promise("record", 8.0),
            promise("client", 12.0),
            ("record-level epsilon 8", "client-level epsilon 12"),
            Tone.PRIVATE,
        ),
        (NONE, promise("client", 2.0), ("client-level epsilon 2",), Tone.PRIVATE),
        (promise("record", 8.0), NONE, ("record-level epsilon 8",), Tone.PRIVATE),
        (NONE, None, ("NON-PRIVATE",), Tone.ALARM),
        (NONE, NONE, ("NON-PRIVATE",), Tone.ALARM),
    ],
)
def test_each_promise_is_a_line_of_its_own_and_none_is_an_alarm(
    privacy: PrivacyStatement, client: PrivacyStatement | None, lines: tuple[str, ...], tone: Tone
) -> None:
    got = badge(privacy, client)
    assert (got.promises, got.tone) == (lines, tone)
    assert got.private == (tone is Tone.PRIVATE)
    assert got.signature == "signature verified"


@pytest.mark.parametrize(
    ("cohort", "said"),
    [
        (Cohort(asked=20, accepted=18, secure=True), "18 of 20 devices, only their sum seen"),
        (Cohort(asked=20, accepted=18), "18 of 20 devices"),
        (Cohort(asked=1, accepted=1), "1 of 1 device"),
        (Cohort(asked=0, accepted=0), ""),
    ],
)
def test_the_devices_are_counted_and_how_they_were_summed_is_said(cohort: Cohort, said: str) -> None:
    assert devices_of(cohort) == said
