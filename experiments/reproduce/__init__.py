"""Published numbers, each with the commands that measure ours.

``rows.toml`` holds what is run and what was published, ``results/`` what was measured;
`rows` reads the former, `runs` measures a row, `ledger` keeps and shows the results.
"""
