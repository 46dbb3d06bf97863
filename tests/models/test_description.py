import json

import flax.linen as nn
import pytest

from flaxvae.checks import InputError
from flaxvae.models import build_vae, describe_module, module_from_description


class Foreign(nn.Module):
    width: int = 3

    def __call__(self, x):
        return x


def test_a_model_survives_json():
    vae = build_vae((28, 20, 3), 7, hidden=(30, 20), activation="silu")
    text = json.dumps(describe_module(vae))
    assert module_from_description(json.loads(text)) == vae


def test_a_foreign_module_is_named_and_refused():
    vae = build_vae((4, 4, 1), 2, encoder=Foreign())
    description = describe_module(vae)
    assert description["encoder"]["module"].endswith("test_description.Foreign")
    assert description["encoder"]["width"] == 3
    with pytest.raises(InputError, match=r"test_description.Foreign.*load\(workdir"):
        module_from_description(description)


def test_a_function_in_a_field_is_described_without_an_address():
    class Holder(nn.Module):
        function: object

    description = describe_module(Holder(function=nn.relu))
    assert "0x" not in json.dumps(description)
    assert "relu" in json.dumps(description)
