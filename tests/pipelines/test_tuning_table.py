"""Trials on the validation split as a table."""

from pipelines.paper.tables import tuning_table


def test_trials_are_named_by_their_flags_and_listed_by_epoch(tmp_path):
    for name, flags, rows in (
        ("a", "--dim=20\n--dataset=d\n--split=validation\n", "1,\n5,0.0712\n10,0.0699\n"),
        ("b", "--dim=20\n--teacher=t\n--alpha=3.0\n", "5,0.0733\n"),
    ):
        trial = tmp_path / "gowalla-fossil" / name
        trial.mkdir(parents=True)
        (trial / "flags.cfg").write_text(flags)
        (trial / "history.csv").write_text(f"epoch,validation/map\n{rows}")
    assert tuning_table(tmp_path).splitlines() == [
        "**gowalla-fossil**",
        "",
        "| flags | epoch 5 | epoch 10 |",
        "|---|---|---|",
        "| `--dim=20` | .0712 | .0699 |",
        "| `--dim=20 --alpha=3.0`, distilled | .0733 |  |",
        # After every cell there is an empty line.
    ]


def test_no_trials_no_table(tmp_path):
    assert tuning_table(tmp_path / "none") == ""


def test_a_search_shows_its_own_table_of_the_best(tmp_path):
    trial = tmp_path / "gowalla_paper_caser" / "trial-0000"
    trial.mkdir(parents=True)
    (trial.parent / "study.db").write_text("a database")
    (trial.parent / "trials.md").write_text("| trial |\n")
    assert tuning_table(tmp_path).splitlines() == ["**gowalla_paper_caser**", "", "| trial |"]
