import re

import pytest

pytest.importorskip("torch", reason="the comparison needs the extra torch")


def test_the_table_compares_three_contenders(run):
    code, out, err = run(
        "benchmark_pytorch",
        "--repeats=1",
        "--epochs=1",
        "--hidden",
        "16",
        "--batch_size=100",
        "--num_images=1000",
    )
    assert code == 0, err
    for name in ("flaxvae", "PyTorch, tuned", "PyTorch, tutorial"):
        row = next(line for line in out.splitlines() if f"│ {name}" in line)
        assert len(re.findall(r"\d+\.\d+", row)) == 4
    assert "random images" in out
    assert "GFLOP/s" in out
