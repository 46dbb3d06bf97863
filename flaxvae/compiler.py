"""How XLA compiles for a CPU: what it may leave out, so that it takes less time."""

import os

import jax

FLAGS = "XLA_FLAGS"
EXTRA_OPTIONS = "--xla_backend_extra_options"
NO_UNROLLING = "xla_cpu_disable_loop_unrolling"
# Passes of XLA that only make programs faster.
SPEED_PASSES = (
    "cpu-parallel-task-assigner",
    "dynamic-dimension-simplifier",
    "gemv-rewriter",
    "post_scatter_expansion_simplification",
    "reshape-mover",
    "shape-canonicalizer",
    "simplify-conditional",
    "simplify-sorts",
    "simplify-while-loops",
    "tree_reduction_rewriter",
    "while-loop-constant-sinking",
    "while-loop-invariant-code-motion",
    "zero_sized_hlo_elimination",
)

Options = dict[str, int | str]  # as `jax.jit` takes them


def install() -> None:
    """Makes XLA leave the loops of a CPU's programs as they are.

    Unrolled, they take a fifth longer to compile, and convolutions up to a tenth longer
    to run. XLA takes this option from ``$XLA_FLAGS`` alone, when it first compiles;
    backends other than the CPU pass over it. A variable that has options of this kind,
    or names a file, is kept.
    """
    flags = os.environ.get(FLAGS, "").strip()
    names_file = bool(flags) and not flags.startswith("-")
    if not names_file and EXTRA_OPTIONS not in flags:
        os.environ[FLAGS] = f"{flags} {EXTRA_OPTIONS}={NO_UNROLLING}".strip()


def light_options() -> Options:
    """For a program whose optimization on a CPU would take longer than it saves.

    Empty where ``jax_disable_most_optimizations`` already asks for less.
    """
    is_lighter = jax.config.read("jax_disable_most_optimizations")
    if jax.default_backend() != "cpu" or is_lighter:
        return {}
    return {"xla_backend_optimization_level": 1}


def lightest_options() -> Options:
    """`light_options` for a program that runs once.

    It compiles in two fifths to seven tenths of the time, and runs three to seven times
    as long.
    """
    options = light_options()
    if options:
        options["xla_backend_optimization_level"] = 0
        if jax.__version_info__ < (0, 11):  # a name that XLA does not know is an error
            options["xla_cpu_use_fusion_emitters"] = False
            options["xla_cpu_parallel_codegen_split_count"] = 1
        options["xla_disable_hlo_passes"] = ",".join(SPEED_PASSES)
    return options
