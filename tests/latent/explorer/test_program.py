"""Functions as programs of the page: their form, and what is refused."""

import base64

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae import InputError
from flaxvae.latent.explorer.program import translate
from flaxvae.models import build_vae
from flaxvae.nn import Conv
from flaxvae.nn.dense import Dense

from .models import SortingDecoder, make_data, untrained

Z = {"z": jax.ShapeDtypeStruct((1, 3), jnp.float32)}


def operations(program):
    return [step[0] for step in program["steps"] if step[0] != "copy"]


def constants(program):
    """The constants by the number of their value."""
    data, found = base64.b64decode(program["data"]), {}
    kinds = {"h": "<f2", "f": "<f4", "i": "<i4"}
    for value, offset, kind in program["constants"]:
        shape = program["values"][value]
        count = int(np.prod(shape))
        numbers = np.frombuffer(data, kinds[kind], count, offset)
        found[value] = numbers.reshape(shape)
    return found


def test_a_layer_is_a_product_a_sum_and_an_activation(key):
    kernel = jax.random.normal(key, (3, 300))

    def decode(z):
        return jax.nn.relu(z @ kernel + jnp.arange(300.0)[None])

    program = translate(decode, Z, ["x"])
    assert operations(program) == ["dot", "add", "max"]
    (_, _, kinds) = zip(*program["constants"], strict=True)
    assert "h" in kinds  # 900 numbers are stored in float16
    found = [a for a in constants(program).values() if a.shape == (3, 300)]
    np.testing.assert_allclose(found[0], kernel, atol=2e-3)


def test_what_depends_on_constants_alone_is_computed_beforehand():
    scale = jnp.array([[1.0, 4.0, 9.0]])
    program = translate(lambda z: z * jnp.sqrt(scale) / jnp.sum(scale), Z, ["x"])
    assert operations(program) == ["mul", "div"]
    found = sorted(a.reshape(-1).tolist() for a in constants(program).values())
    assert found == [[1.0, 2.0, 3.0], [14.0]]


def test_what_the_result_does_not_depend_on_is_left_out():
    def decode(z):
        jnp.sort(z)  # would be refused
        return z + 1

    assert operations(translate(decode, Z, ["x"])) == ["add"]


def test_values_are_defined_before_they_are_read():
    def decode(z):
        image = jnp.repeat(z.reshape(1, 3, 1, 1), 4, axis=2)
        kernel = jnp.ones((3, 3, 1, 2))
        y = jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.lax.fori_loop(
            0, 3, lambda i, total: total + i * y, jnp.zeros_like(y)
        )

    program = translate(decode, Z, ["x"])
    known = {value for value, *_ in program["constants"]} | {program["inputs"]["z"]}
    for _, results, operands, _, _ in program["steps"]:
        assert known.issuperset(operands)
        known.update(results)
    assert program["outputs"]["x"] in known
    assert {"conv", "scan"} <= set(operations(program))


def test_draws_of_the_key_become_inputs():
    def decode(z, key):
        return z + jax.random.normal(key, (1, 3))

    program = translate(decode, Z, ["x"], key=jax.random.key(0))
    assert operations(program) == ["add"]
    (noise,) = program["noise"]
    assert program["values"][noise] == [1, 3]


@pytest.mark.parametrize("layer", [Dense(5), Conv(5, 3, 2)], ids=["dense", "conv"])
def test_layers_of_bfloat16_are_products_of_the_page(layer):
    def decode(z):
        x = jnp.broadcast_to(z[:, :, None, None], (1, 3, 4, 2))
        variables = layer.init(jax.random.key(0), x)
        return layer.clone(dtype="bfloat16").apply(variables, x)

    found = operations(translate(decode, Z, ["x"]))
    assert len({"dot", "conv"} & set(found)) == 1


def test_a_platform_s_own_way_is_not_taken():
    def decode(z):
        return jax.lax.platform_dependent(z, cpu=jnp.sort, default=jnp.sin)

    assert operations(translate(decode, Z, ["x"])) == ["sin"]


def test_a_primitive_outside_the_set_is_refused_with_its_module(tmp_path):
    data = make_data()
    model = build_vae(data.shape, latent_dim=3, hidden=(4,))
    run = untrained(model.clone(decoder=SortingDecoder()), data)
    with pytest.raises(InputError, match=r"primitive 'sort' in .*decoder"):
        run.explore(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())
