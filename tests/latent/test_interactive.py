"""The interactive scatter: its points, and what is hovered over."""

import base64
import importlib.util
import io
import json

import numpy as np
import pytest
from PIL import Image

from flaxvae.checks import InputError
from flaxvae.latent.figures.style import class_color
from flaxvae.latent.interactive import encode_images, scatter, write_scatter

RNG = np.random.default_rng(0)


def read_image(uri):
    data = base64.b64decode(uri.split(",")[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float) / 255


def test_each_point_has_its_image_class_and_index(tmp_path):
    codes = RNG.normal(size=(7, 2))
    labels = np.array([0, 2, 0, 2, 0, 0, 2])
    images = RNG.uniform(size=(7, 5, 6, 1))
    names = ["ant", "bee", "cat"]
    figure = scatter(
        codes, labels, images, title="t", indices=np.arange(10, 17), class_names=names
    )
    write_scatter(figure, tmp_path / "x.json")
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["layout"]["xaxis"]["title"]["text"] == "z1"
    assert found["layout"]["yaxis"]["title"]["text"] == "z2"
    assert [trace["name"] for trace in found["data"]] == ["ant", "cat"]
    for trace, label in zip(found["data"], (0, 2), strict=True):
        assert trace["type"] == "scattergl"
        assert trace["marker"]["color"] == class_color(label)
        rows = np.flatnonzero(labels == label)
        for place, i in enumerate(rows):
            assert (trace["x"][place], trace["y"][place]) == tuple(codes[i])
            index, name, uri = trace["customdata"][place]
            assert (index, name) == (10 + i, names[label])
            expected = np.broadcast_to(images[i], (5, 6, 3))
            np.testing.assert_allclose(read_image(uri), expected, atol=1 / 30 + 0.01)


def test_images_keep_their_colours_and_places():
    images = np.zeros((1, 16, 16, 3))
    images[0, :8, 8:] = 1, 0, 0  # red, in the upper right quarter
    shown = read_image(encode_images(images)[0])
    assert shown[2, 13, 0] > 0.8 and shown[2, 13, 1:].max() < 0.2
    assert shown[13, 2].max() < 0.2
    assert read_image(encode_images(np.ones((1, 256, 128, 1)))[0]).shape == (64, 32, 3)


def test_a_page_holds_all_that_it_needs(tmp_path):
    images = np.full((3, 4, 4, 1), 0.5)
    write_scatter(scatter(np.zeros((3, 2)), None, images), tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    assert "plotly_hover" in page and page.count("iVBORw0KGgo") >= 3
    assert "{plot_id}" not in page and '<script src="http' not in page
    assert len(page) < 8_000_000


def test_other_shapes_of_codes_and_labels():
    strip = scatter(np.arange(4.0)[:, None], list("baab"), axis_labels=["z1"])
    assert [trace.name for trace in strip.data] == ["a", "b"]
    assert list(strip.data[1].x) == [0.0, 3.0]
    np.testing.assert_array_equal(np.round(strip.data[1].y), 1)
    plain = scatter(np.zeros((2, 2)))
    assert not plain.layout.showlegend and plain.data[0].customdata[1] == [1, "", ""]


def test_bad_input_gets_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="labels must be one for each of 2 codes, got"):
        scatter(np.zeros((2, 2)), np.zeros(3))
    with pytest.raises(InputError, match="unknown format 'png': choose from html, jso"):
        write_scatter(scatter(np.zeros((2, 2))), tmp_path / "x.png")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'plotly: pip install -e "\.\[plotly\]"'):
        scatter(np.zeros((2, 2)))
