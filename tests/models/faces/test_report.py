from io import StringIO

from rich.console import Console

from models.faces.report import FolderReport, LeftOut, Reason, RowReport

REPORT = FolderReport(
    "my_faces",
    (("anger", 10), ("fear", 0), ("happiness", 30)),
    (
        *(LeftOut(f"anger/{i}.png", Reason.BROKEN) for i in range(5)),
        LeftOut("[red]/", Reason.UNKNOWN_FOLDER, "3 files"),
        LeftOut("anger/s.png", Reason.TOO_SMALL, "9x9"),
    ),
)


def shown(report: FolderReport) -> str:
    page = StringIO()
    Console(width=120, file=page).print(report)
    return page.getvalue()


def test_the_sentence_counts_every_reason_and_names_the_first_few():
    assert REPORT.sentence == (
        "my_faces: 40 usable faces (anger 10, happiness 30); left out: "
        "broken or cut short: 5 (anger/0.png, anger/1.png, anger/2.png, and 2 more); "
        "too small: 1 (anger/s.png: 9x9); folder that names no emotion: 1 ([red]/: 3 files)."
    )


def test_the_tables_name_everything_as_it_is_written():
    text = shown(REPORT)
    for thing in REPORT.left_out:
        assert thing.path in text
    assert "25.0%" in text
    assert "broken or cut short (5)" in text
    assert "7 left out" in text


def test_the_balance_bar_is_longest_for_the_commonest_emotion():
    bars = {name: next(line for line in shown(REPORT).splitlines() if name in line).count("━") for name, _ in REPORT.used}
    assert bars["happiness"] > bars["anger"] > 0


def test_a_report_without_faces_or_losses_still_prints():
    assert "Nothing was left out." in shown(FolderReport("f", (("anger", 0),), ()))


def test_a_row_report_adds_reasons_only_where_they_apply():
    report = RowReport("x.csv", 10, ()).without("black", 0).without("unknown", 3)
    assert report.left_out == (("unknown", 3),)
    assert report.used == 7
