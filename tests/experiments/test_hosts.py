"""Two processes of two devices each, on this machine, are one run."""

import json
import signal
import socket
import time

import pytest

from flaxvae.checks import InputError
from flaxvae.training import RunFolder, hosts

COMMON = ("--dataset=digits", "--no_figures", "--hidden", "32", "--seed=3")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def start_two(start, environment):
    """Starts a command as process 0 and process 1 of a run."""

    def start_two(*arguments):
        environment["JAX_NUM_CPU_DEVICES"] = "2"
        environment["no_proxy"] = "127.0.0.1"  # gRPC heeds proxies
        run = (f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2")
        return [
            start("mnist_vae", *arguments, *run, f"--process_id={i}") for i in (0, 1)
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
    processes = start_two(*COMMON, *budget, "--epochs=4", f"--workdir={two}")
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
    assert processes[0].returncode != 0
    assert time.monotonic() - began < 2 * hosts.SECONDS_TO_MISS_A_PEER
    # JAX's watchdog may notice it before the failing sum does.
    messages = ("another process of the run has ended", "another task died")
    assert any(words in err for words in messages), err
    after = lines_of(tmp_path)
    assert after[: len(before)] == before
    assert [line["epoch"] for line in after] == list(range(1, len(after) + 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("h:1", None, None), "must be given together, got h:1, None, None"),
        ((None, 2, 0), "must be given together, got None, 2, 0"),
        (("host", 2, 0), "coordinator must be HOST:PORT, got 'host'"),
        (("h:1", 2, 2), "process_id must be in 0 to 1, got 2"),
        (("h:1", 0, 0), "num_processes must be >= 1, got 0"),
    ],
)
def test_wrong_addresses_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        hosts.connect(*arguments)


def test_one_process_has_nobody_to_agree_with():
    hosts.connect()
    hosts.leave()
    assert hosts.agree(0, 7) == (0, 7)
    assert hosts.is_main()
    tree = {"a": 1}
    assert hosts.share(tree) is tree
