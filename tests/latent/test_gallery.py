"""The page of a run: complete in itself, readable, and safe."""

import base64
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from flaxvae.data.layout import layout_of
from flaxvae.latent.gallery import (
    caption_of,
    make_notebook_view,
    make_page,
    write_gallery,
)

SUMMARY = {
    "dataset": "<b>mnist</b>",
    "parameters": 1234567,
    "test": {"elbo": -105.25, "kl_per_level": [7.5, 14.0], "bits_per_dim": None},
    "surgery": {"marginal_kl": 12.5},
    "figures": ["figures/samples.png"],
}


class Page(HTMLParser):
    """What a page holds: elements with attributes, and texts by element."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self._open[-1], data.strip()))

    def of(self, tag):
        return [attributes for each, attributes in self.elements if each == tag]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    for name in ("samples.png", "manifold.png", "loop.gif", "notes.txt", ".x.png"):
        path = tmp_path / "figures" / name
        if path.suffix == ".txt":
            path.write_text("x")
        else:
            Image.fromarray(np.full((4, 4), len(name), np.uint8)).save(path)
    return tmp_path


def test_a_page_holds_all_numbers_and_pictures_of_a_run(folder):
    path = write_gallery(folder)
    assert path == folder / "gallery.html"
    page = Page(path.read_text())
    pictures = page.of("img")
    names = [figure["id"] for figure in page.of("figure")]
    assert names == ["manifold.png", "samples.png", "loop.gif"]
    for name, picture in zip(names, pictures, strict=True):
        kind, data = picture["src"].removeprefix("data:").split(";base64,")
        assert kind == f"image/{name[-3:]}"
        assert base64.b64decode(data) == (folder / "figures" / name).read_bytes()
        assert picture["alt"] == caption_of(name[:-4]) and picture["alt"].endswith(".")
    terms = [text for tag, text in page.texts if tag == "dt"]
    values = [text for tag, text in page.texts if tag == "dd"]
    shown = dict(zip(terms, values, strict=True))
    assert shown == {
        "ELBO": "-105.2",
        "KL per level": "7.5, 14",
        "marginal KL": "12.5",
        "dataset": "<b>mnist</b>",
        "parameters": "1,234,567",
    }
    headings = [text for tag, text in page.texts if tag == "h2"]
    assert headings == ["Test", "Pictures", "Surgery", "Run"]
    assert page.of("html")[0]["lang"] == "en"


@pytest.mark.parametrize(
    ("shape", "kind"), [([4, 4, 1], "images"), ([50, 2], "series"), ([7], "table")]
)
def test_captions_fit_the_kind_of_the_data(folder, shape, kind):
    (folder / "config.json").write_text(json.dumps({"data": {"shape": shape}}))
    figure = folder / "figures" / "samples.png"
    figure.rename(figure.with_stem("reconstructions"))
    page = Page(write_gallery(folder).read_text())
    shown = dict(zip((f["id"] for f in page.of("figure")), page.of("img"), strict=True))
    caption = shown["reconstructions.png"]["alt"]
    assert f". {caption}" in [text for tag, text in page.texts if tag == "figcaption"]
    assert {each for each in ("images", "series", "table") if each in caption} == {kind}
    path = figure.with_stem("reconstructions")
    view = Page(make_notebook_view("run", {}, [path], layout_of(shape)))
    assert view.of("img")[0]["alt"] == caption


def test_nothing_is_loaded_from_elsewhere(folder):
    text = write_gallery(folder).read_text()
    assert "http" not in text and "<script" not in text and "@import" not in text
    for _, attributes in Page(text).elements:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")


def test_names_of_a_user_are_texts():
    page = Page(make_page("<img src=x>&", {"a": "<script>"}, []))
    assert not page.of("img") and not page.of("script")
    assert ("h1", "<img src=x>&") in page.texts


def test_an_empty_folder_gets_no_page(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert write_gallery(tmp_path) is None
    assert not (tmp_path / "gallery.html").exists()


def test_a_notebook_view_escapes_names_and_holds_its_pictures(folder):
    picture = next((folder / "figures").glob("*.png"))
    page = Page(make_notebook_view("a < b", {"kl_<i>": 1.23456}, [picture]))
    assert ("b", "a < b") in page.texts and ("td", "1.235") in page.texts
    assert ("th", "KL <i>") in page.texts and not page.of("i")
    kind, data = page.of("img")[0]["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == picture.read_bytes()
