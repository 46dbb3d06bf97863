"""Two processes of two devices each, on this machine, are one run."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import flaxvae
from flaxvae.checks import InputError
from flaxvae.data import from_arrays
from flaxvae.models import build_vae
from flaxvae.objectives import ELBO
from flaxvae.training import RunFolder, loop
from flaxvae.training.processes import hosts, rendezvous
from flaxvae.training.processes.address import Address, read_address
from flaxvae.training.processes.agreement import ProcessLostError, compare

ROOT = Path(__file__).parents[2]

COMMON = ("--dataset=digits", "--no_figures", "--hidden", "32", "--seed=3")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def start_two(start, environment):
    """Starts a command as process 0 and process 1 of a run."""

    def start_two(*arguments, of_first=()):
        environment["JAX_NUM_CPU_DEVICES"] = "2"
        environment["no_proxy"] = "127.0.0.1"  # gRPC heeds proxies
        run = (f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2")
        return [
            start("mnist_vae", *arguments, *own, *run, f"--process_id={i}")
            for i, own in enumerate((of_first, ()))
        ]

    return start_two


def wait_for(condition, processes):
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        for process in processes:
            assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def lines_of(workdir):
    path = workdir / "metrics.jsonl"
    return RunFolder(workdir).read_metrics() if path.exists() else []


@pytest.mark.parametrize(
    "budget",
    [
        (),
        ("--device_memory_budget=60000",),
    ],
    ids=["resident", "streamed"],
)
@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(start_two, run, tmp_path, budget):
    two, one = tmp_path / "two", tmp_path / "one"
    code, _, err = run("mnist_vae", *COMMON, "--epochs=4", f"--workdir={one}")
    assert code == 0, err
    processes = start_two(  # process 1 needs no folder
        *COMMON, *budget, "--epochs=4", of_first=(f"--workdir={two}",)
    )
    ends = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    assert "test -ELBO" in ends[0][0]
    assert "test -ELBO" not in ends[1][0]  # only process 0 prints
    assert "epoch 4/4" not in ends[1][1]
    assert ("are streamed in chunks of" in ends[0][1]) == bool(budget)
    for a, b in zip(lines_of(one), lines_of(two), strict=True):
        for split in ("train", "validation"):
            assert a[split] == pytest.approx(b[split], rel=1e-4)
    tests = [
        json.loads((folder / "summary.json").read_text())["test"]
        for folder in (one, two)
    ]
    assert tests[0] == pytest.approx(tests[1], rel=1e-4)


@pytest.mark.slow
def test_a_signal_to_one_saves_and_a_death_ends_the_other(start_two, tmp_path):
    arguments = (*COMMON, "--epochs=100000", f"--workdir={tmp_path}")
    processes = start_two(*arguments)
    wait_for(lambda: len(lines_of(tmp_path)) > 3, processes)
    processes[1].send_signal(signal.SIGTERM)
    ends = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [143, 143], ends
    assert "SIGTERM: the same command continues the run" in ends[0][1]
    before = lines_of(tmp_path)
    newest = max(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert newest // 11 == len(before)  # 1425 // 128 steps per epoch

    processes = start_two(*arguments)
    wait_for(lambda: len(lines_of(tmp_path)) > len(before) + 3, processes)
    processes[1].kill()
    began = time.monotonic()
    _, err = processes[0].communicate(timeout=60)
    assert processes[0].returncode == 1, err
    assert time.monotonic() - began < hosts.SECONDS_TO_MISS_A_PEER
    # The failing sum says it, or the missing heartbeats; JAX's watchdog comes later.
    messages = ("another process of the run has ended", "process 1 was lost")
    assert any(words in err.splitlines()[-1] for words in messages), err
    after = lines_of(tmp_path)
    assert after[: len(before)] == before
    assert [line["epoch"] for line in after] == list(range(1, len(after) + 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("h:1", None, None), "must be given together, got h:1, None, None"),
        ((None, 2, 0), "must be given together, got None, 2, 0"),
        (("host", 2, 0), "coordinator must be HOST:PORT, got 'host'"),
        (("::1", 2, 0), r"must be HOST:PORT, of IPv6 \[HOST\]:PORT, got '::1'"),
        (("h:one", 2, 0), "coordinator must be HOST:PORT, got 'h:one'"),
        (("http://h:1", 2, 0), "coordinator must be HOST:PORT, got 'http://h:1'"),
        (("h:0", 2, 0), "coordinator must have a port in 1 to 65535, got 'h:0'"),
        (("h:99999", 2, 0), "must have a port in 1 to 65535, got 'h:99999'"),
        (("h.invalid:9", 2, 0), r"a host that is known here, got 'h.invalid' \(.*\)"),
        (("h:1", 2, 2), "process_id must be in 0 to 1, got 2"),
        (("h:1", 2, -1), "process_id must be in 0 to 1, got -1"),
        (("h:1", 0, 0), "num_processes must be >= 1, got 0"),
        (("h:1", "two", 0), "num_processes must be an integer, got 'two'"),
    ],
)
def test_wrong_addresses_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        hosts.connect(*arguments)


@pytest.fixture
def meet(monkeypatch):
    """The ends of several processes, as threads, that meet at one address."""
    monkeypatch.setattr(rendezvous, "SECONDS_TO_ANSWER", 1.0)

    def meet(*descriptions, seconds=20.0):
        port, count = free_port(), len(descriptions)

        def one(i, each):
            try:
                address = Address("127.0.0.1", port, each.pop("count", count), i)
                rendezvous.meet(address, each, seconds)
            except (InputError, ProcessLostError) as error:
                return f"{type(error).__name__}: {error}"
            return None

        with ThreadPoolExecutor(len(descriptions)) as pool:
            numbers = [each.pop("number", i) for i, each in enumerate(descriptions)]
            return list(pool.map(one, numbers, descriptions))

    return meet


@pytest.mark.parametrize(
    ("descriptions", "message"),
    [
        ([{"command": "a"}, {"command": "a"}, {"command": "a"}], None),
        (
            [{"command": "a"}, {"command": "b"}],
            "InputError: the processes of a run must agree, and command is a in "
            "process 0 and b in process 1",
        ),
        ([{}, {"count": 3}], "InputError: num_processes is 2 in process 0 and 3 in"),
        ([{"count": 3}, {"number": 1}, {"number": 1}], "process_id is 1 in two proc"),
        (
            [{}, {"failed": "epochs must be >= 1, got 0", "code": 2}, {}],
            "InputError: process 1 has ended: epochs must be >= 1, got 0",
        ),
        (
            [{"failed": "it was interrupted", "code": 130}, {}],
            "ProcessLostError: process 0 has ended: it was interrupted",
        ),
    ],
    ids=["equal", "command", "count", "twice", "failed", "interrupted"],
)
def test_all_processes_hear_the_same_before_they_connect(meet, descriptions, message):
    ends = meet(*descriptions)
    for end in ends:
        assert (end is None) if message is None else (message in end), ends


def test_who_does_not_appear_is_named(meet, monkeypatch, capfd):
    monkeypatch.setattr(rendezvous, "SECONDS_IN_SILENCE", 0.3)
    monkeypatch.setattr(rendezvous, "SECONDS_TO_ANSWER", 0.5)
    ends = meet({"count": 3}, {"count": 3}, seconds=1.5)
    for end in ends:
        assert "InputError: process 2 of 3 did not appear at 127.0.0.1" in end
    err = capfd.readouterr().err
    for i in (0, 1):
        assert f"process {i} is waiting for process 2 of 3 at 127.0.0.1" in err
    (end,) = meet({"number": 1, "count": 2}, seconds=1.0)
    assert "nothing answers at 127.0.0.1" in end
    err = capfd.readouterr().err
    assert "process 1 is waiting for process 0 at 127.0.0.1" in err
    assert "at most 1 s (Connection refused)" in err


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (0, "must have a free port on the machine of process 0, got 127.0.0.1"),
        (1, "something else answers at 127.0.0.1"),
    ],
)
def test_a_port_of_another_program_is_refused(number, message, monkeypatch):
    monkeypatch.setattr(rendezvous, "SECONDS_TO_ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = Address("127.0.0.1", other.getsockname()[1], 2, number)
        with pytest.raises(InputError, match=message):
            rendezvous.meet(address, {}, 5.0)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--coordinator=h:1", "--num-processes", "2", "--process_id=1"], (2, 1)),
        (["--coordinator=127.0.0.1:1", "--num_processes=2"], None),
        (["--coordinator=127.0.0.1:1", "--num_processes=2", "--process_id"], None),
    ],
)
def test_the_address_is_found_among_refused_flags(args, expected):
    found = read_address([a.replace("h:1", "127.0.0.1:1") for a in args])
    assert expected == (found and (found.num_processes, found.process_id))


@pytest.fixture
def run_script(environment, tmp_path):
    """Runs a script as process 0 and process 1; the JSON that each prints."""

    def run_script(text):
        script = tmp_path / "script.py"
        script.write_text(text)
        address = f"127.0.0.1:{free_port()}"
        processes = [
            subprocess.Popen(
                [sys.executable, script, address, str(i), tmp_path],
                env=environment | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in (0, 1)
        ]
        ends = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], ends
        return [json.loads(out.splitlines()[-1]) for out, _ in ends]

    return run_script


# What differs in process 1, and what both processes must say of it.
DIFFERENCES = {
    "batch_size=15": "batch_size must be a multiple of 2, the number of devices, got",
    "dataset=from_arrays(other)": "data test x fingerprint is .*: other examples, or",
}
SCRIPT = """
import json, sys
from pathlib import Path
from flaxvae.training.processes import hosts
folder = Path(sys.argv[3])
hosts.connect(sys.argv[1], 2, int(sys.argv[2]))
import flaxvae, numpy as np
from flaxvae import InputError
from flaxvae.models import build_vae
from flaxvae.objectives import ELBO

x = np.random.default_rng(0).random((120, 4, 4), np.float32)
test = x[100:]
other = x[:100].copy(), test.copy()
other[1][7, 1, 1] = 0.5

def from_arrays(x):
    x, t = x if isinstance(x, tuple) else (x[:100], test)
    return flaxvae.data.from_arrays(x, test=t, validation_size=0)

found = {}
for name in [*DIFFERENCES, ""]:
    common = dict(model=build_vae((4, 4, 1), 2, hidden=(8,)), dataset=from_arrays(x))
    common |= dict(epochs=1, batch_size=10, progress=False, workdir=folder / "a")
    if not hosts.is_main():
        common |= eval(f"dict({name})")
    try:
        found[name] = repr(flaxvae.fit(**common).history[-1]["train"]["loss"])
    except InputError as error:
        found[name] = str(error)
    if name:
        assert not (folder / "a").exists()
hosts.leave()
print(json.dumps(found))
"""


def test_different_settings_and_data_are_refused_everywhere(run_script):
    names = list(DIFFERENCES)
    found = run_script(SCRIPT.replace("DIFFERENCES", repr(names)))
    for name, message in DIFFERENCES.items():
        for answers in found:
            assert re.search(message, answers[name]), (name, answers[name])
    # Whoever catches the error goes on with the others.
    assert float(found[0][""]) == float(found[1][""]) > 0


def test_what_a_training_tells_the_others(monkeypatch):
    descriptions = []

    def tell(describe):
        descriptions.append(describe())
        raise InterruptedError

    monkeypatch.setattr(hosts, "are_several", lambda: True)
    monkeypatch.setattr(loop, "meet", tell)
    x = np.linspace(0, 1, 320, dtype=np.float32).reshape(20, 16)
    common = {"model": build_vae((16,), 2, hidden=(8,)), "dataset": from_arrays(x)}
    common |= {"epochs": 1, "batch_size": 10, "progress": False}

    def custom(vae, x, *, key):
        return ELBO()(vae, x, key=key)

    for workdir, objective in (("a", ELBO()), ("b", custom)):
        with pytest.raises(InterruptedError):
            flaxvae.fit(**common, workdir=workdir, objective=objective)
    for part, message in (
        ("settings", "objective.name is ELBO in process 0 and tests."),
        ("workdir", "workdir is a in process 0 and b in process 1"),
        ("program", "checksum is .* in process 1: the objective, the optimizer or a"),
        ("data", None),
    ):
        found = compare([{part: description[part]} for description in descriptions])
        assert re.search(message, found) if message else found is None


def test_one_process_has_nobody_to_agree_with():
    hosts.connect()
    hosts.leave()
    assert hosts.agree(0, 7) == (0, 7)
    assert hosts.is_main()
    tree = {"a": 1}
    assert hosts.share(tree) is tree
