import sys
from types import ModuleType

import pytest

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


@pytest.fixture
def notebook(monkeypatch):
    """A Jupyter kernel without a kernel: its outputs, each as the states it had."""
    outputs = []

    class Handle:
        def __init__(self, states):
            self.states = states

        def update(self, data, raw):
            assert raw
            self.states.append(data)

    def display(data, raw, display_id):
        assert raw and display_id is True
        outputs.append([data])
        return Handle(outputs[-1])

    shell = type("Shell", (type("ZMQInteractiveShell", (), {}),), {})()
    ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: shell
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return outputs


def test_a_notebook_has_one_output_that_is_updated(notebook, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.show_progress(50) as update:
        for epoch in range(1, 51):
            now[0] += 0.05
            update(None, epoch - 0.5, 1234.5)
            update(line(epoch), epoch, 1234.5)
    assert capsys.readouterr() == ("", "")
    (states,) = notebook
    assert 3 <= len(states) <= 2 + 50 * 0.05 / progress.SECONDS_BETWEEN_DISPLAYS
    assert states[0]["text/plain"].startswith("epoch 0/50")
    assert "s left" in states[1]["text/plain"]
    last = states[-1]
    assert last["text/plain"].splitlines() == [
        "epoch 50/50, 2 s, 1,234 examples/s",
        "train      loss 3.00 (reconstruction 2.50, KL 0.50)",
        "validation loss 3.00 (reconstruction 2.50, KL 0.50)",
    ]
    assert '<progress value="50" max="50"' in last["text/html"]
    assert "validation loss 3.00" in last["text/html"]


def test_a_notebook_keeps_the_state_of_a_run_that_ended_early(notebook):
    with pytest.raises(KeyboardInterrupt), progress.show_progress(9, done=3) as update:
        update(line(4), 4.5, 10.0)
        raise KeyboardInterrupt
    (states,) = notebook
    assert states[-1]["text/plain"].startswith("epoch 4/9, ")
    assert '<progress value="4.5" max="9"' in states[-1]["text/html"]


def test_ipython_without_a_kernel_prints_lines(notebook, capsys, monkeypatch):
    for shell in (None, type("TerminalInteractiveShell", (), {})()):
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda s=shell: s)
        with progress.show_progress(1) as update:
            update(line(1), 1, 1.0)
        assert "epoch 1/1" in capsys.readouterr().err
    assert not notebook
