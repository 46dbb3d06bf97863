from flaxvae.training import progress

TERMS = {"loss": 3.0, "log_likelihood": -2.5, "kl": 0.5}


def line(epoch, validation=TERMS):
    return {"epoch": epoch, "train": TERMS, "validation": validation}


def test_plain_lines_show_the_first_and_the_last_epoch(capsys):
    with progress.show_progress(50) as update:
        for epoch in range(1, 51):
            update(line(epoch), epoch, 1234.5)
    shown = capsys.readouterr().err.splitlines()
    assert [text.split(":")[0] for text in shown] == ["epoch  1/50", "epoch 50/50"]
    for part in (
        "train loss 3.00",
        "validation loss",
        "reconstruction 2.50",
        "KL 0.50",
    ):
        assert part in shown[0]
    assert "1,23" in shown[0]
    assert "0 s left" in shown[1]


def test_a_resumed_run_starts_where_it_was(capsys):
    with progress.show_progress(50, done=48) as update:
        update(line(49, validation={}), 49, 1.0)
    text = capsys.readouterr().err
    assert "epoch 49/50" in text
    assert "validation" not in text


def test_silence(capsys):
    with progress.show_progress(2, shown=False) as update:
        update(line(1), 1, 1.0)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    with progress.show_progress(2) as update:
        update(line(1), 1, 1.0)
        update(None, 1.5, 9.0)
        update(line(2), 2, 1234.5)
    shown = capsys.readouterr().err
    for part in ("epoch 2/2", "1,23", "train      loss 3.00", "validation loss 3.00"):
        assert part in shown
    assert "KL 0.50" in shown
