"""The page in a browser: its decoder equals JAX's, and its controls work."""

import base64
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae import InputError
from flaxvae.data import from_arrays, load
from flaxvae.latent.explorer import page as pages
from flaxvae.latent.explorer.page import ExplorerConfig, describe_explorer, make_page
from flaxvae.latent.explorer.program import translate
from flaxvae.latent.keys import draw_key
from flaxvae.latent.levels import as_codes, encode, kl_per_level
from flaxvae.models import VAEConfig, build_vqvae
from flaxvae.training.keys import Stream

from .models import autoencoder, hierarchical, make_data, untrained, vae

PACKAGE = resources.files("flaxvae.latent.explorer")
SOURCE = Path(str(PACKAGE)) / "src"
AXE = SOURCE / "node_modules/axe-core/axe.min.js"
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--force-prefers-reduced-motion",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,720",
)
CODES = 100

SMALL_NET = {"encoder": "mlp", "hidden": (8,), "filters": (2, 4)}  # decoders count
CONV = {**SMALL_NET, "decoder": "conv"}
RESNET = {**SMALL_NET, "decoder": "resnet", "num_residual_blocks": 1}
VAES = {
    "mlp": {"hidden": (8,), "activation": "elu"},
    "gates": {"hidden": (8,), "activation": "glu", "normalization": "layer"},
    "conv": {**CONV, "activation": "gelu_exact"},
    "conv-batch": {**CONV, "normalization": "batch", "activation": "leaky_relu"},
    "resnet-group": {**RESNET, "normalization": "group", "activation": "silu"},
    "resnet-layer": {**RESNET, "normalization": "layer", "resampling": "resize"},
    "concat": {"hidden": (8,), "conditional": "concat"},
    "embedding": {"hidden": (8,), "conditional": "embedding"},
    "film": {**CONV, "conditional": "film"},
    "continuous_bernoulli": {"hidden": (8,), "likelihood": "continuous_bernoulli"},
    "normal": {"hidden": (8,), "likelihood": "normal", "scale": "learned"},
    "laplace": {"hidden": (8,), "likelihood": "laplace"},
    "discretized_logistic": {"hidden": (8,), "likelihood": "discretized_logistic"},
    "discretized_logistic_mixture": {
        "hidden": (8,),
        "likelihood": "discretized_logistic_mixture",
    },
    "categorical": {"hidden": (8,), "likelihood": "categorical"},
}
SMALL = ("discretized_logistic_mixture", "categorical")  # they compute much per pixel


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium without a network, driven by selenium."""
    selenium = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and chromedriver, such as Debian's chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    logs = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    found = selenium.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """A page of a VAE, opened from the disk."""
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    vae(hidden=(8,)).explore(path, with_encoder=True)
    open_page(browser, path)
    yield browser
    logs = browser.get_log("browser")
    assert not [log for log in logs if log["level"] != "INFO"]
    messages = [json.loads(log["message"]) for log in browser.get_log("performance")]
    sent = [m["message"] for m in messages]
    urls = {
        m["params"]["request"]["url"]
        for m in sent
        if m["method"] == "Network.requestWillBeSent"
        and m["params"]["documentURL"].startswith("file:")
    }
    outside = {u for u in urls if not u.startswith(("file:", "data:", "blob:"))}
    assert not outside


def wait(browser, script, seconds=20):
    """Until a script returns something true."""
    end = time.monotonic() + seconds
    while not (found := browser.execute_script(script)):
        assert time.monotonic() < end, script
        time.sleep(0.02)
    return found


@pytest.fixture
def tab(browser):
    """Another tab, so that the shared page stays open."""
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    yield browser
    browser.close()
    browser.switch_to.window(first)


def open_page(browser, path):
    browser.get(path.as_uri())
    wait(browser, "return window.explorer && explorer.pictures > 0")


def decode_in_page(page, program, z, **inputs):
    """The program's results for codes ``(N, D)``, ``(N, numbers)``."""
    script = """
    const [program, codes, more] = arguments;
    const run = explorer.compile(program);
    for (const [name, value] of Object.entries(more)) run.inputs[name].fill(value);
    return codes.map((z) => { run.inputs.z.set(z); run.run();
                              return Array.from(Object.values(run.outputs)[0]); });
    """
    return np.array(page.execute_script(script, program, z.tolist(), inputs))


@pytest.mark.parametrize("kind", [*VAES, "autoencoder"])
def test_decoded_numbers_are_those_of_jax(page, kind):
    run = (
        autoencoder()
        if kind == "autoencoder"
        else vae((4, 4, 3) if kind in SMALL else (8, 8, 1), **VAES[kind])
    )
    program = describe_explorer(run, run.data)["decoder"]
    z = np.random.default_rng(1).normal(0, 1.5, (CODES, *run.code_shape))
    condition = 2 if run.is_conditional else None
    more = {} if condition is None else {"condition": condition}
    expected = np.asarray(mean_of(run.decode(z.astype(np.float32), condition)))
    found = decode_in_page(page, program, z.reshape(CODES, -1), **more)
    assert np.abs(found - expected.reshape(CODES, -1)).max() < 2 / 255


@jax.jit
def mean_of(distribution):
    return distribution.mean


def operations(z):
    """Operations that custom networks may use, of numbers ``(1, 12)``."""
    image = z.reshape(1, 3, 4, 1)
    grid = z.reshape(3, 4)
    depthwise = jnp.arange(12.0).reshape(2, 2, 1, 3)
    layout = ("NHWC", "HWIO", "NHWC")

    def step(carry, row):
        return 0.5 * carry + row, carry * row

    def convolve(x, kernel, **more):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=layout, **more
        )

    zero = jnp.zeros((), z.dtype)
    series = jax.lax.conv_general_dilated(
        z.reshape(1, 6, 2),
        jnp.arange(12.0).reshape(3, 2, 2),
        (2,),
        "SAME",
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return (
        *jax.lax.scan(step, jnp.zeros(4), grid),
        *jax.lax.scan(step, jnp.zeros(4), grid, reverse=True),
        jnp.cumsum(grid, axis=0),
        jax.lax.cumsum(grid, axis=1, reverse=True),
        jax.lax.pad(grid, zero, ((-1, 2, 0), (1, -1, 1))),
        grid[:, ::-1].T @ grid,
        jnp.einsum("abc,adc->abd", z.reshape(2, 3, 2), z.reshape(2, 3, 2)),
        jnp.take(grid, jnp.array([2, 0, 1, 1]), axis=1),
        grid.at[:, jnp.array([3, 1])].set(7.0),
        grid.at[jnp.array([0, 0, 2])].add(1.5),
        jax.lax.dynamic_slice(grid, (jnp.argmax(z) % 3, 1), (2, 2)),
        jax.lax.dynamic_update_slice(grid, jnp.ones((2, 2)), (1, jnp.argmin(z) % 3)),
        convolve(jnp.repeat(image, 3, axis=3), depthwise, feature_group_count=3),
        convolve(image, jnp.ones((3, 2, 1, 2)), rhs_dilation=(1, 2)),
        series,
        jax.image.resize(image, (1, 5, 9, 1), "linear"),
        jax.image.resize(image, (1, 6, 8, 1), "nearest"),
        jax.nn.softmax(grid, axis=0),
        jax.nn.logsumexp(grid),
        jnp.round(3 * z) + jnp.floor(z) + jnp.sign(z) * jnp.abs(z) ** 1.5,
        jax.scipy.special.erf(z) + jnp.log1p(z**2) + jnp.expm1(z) + z**3,
        jnp.where((z > 0) & ~(z > 1), z, jnp.clip(z, -0.5, 2.0)),
        jnp.std(grid, axis=1),
        jnp.max(grid, axis=0)[None] - jnp.min(grid, axis=1, keepdims=True),
        (z * 10).astype(jnp.int32) // 3 + jnp.arange(12)[None],
    )


def test_operations_are_those_of_jax(page):
    def joined(z):
        return jnp.concatenate([jnp.ravel(a) * 1.0 for a in operations(z)])[None]

    program = translate(joined, {"z": jax.ShapeDtypeStruct((1, 12), "float32")}, ["x"])
    z = np.random.default_rng(4).normal(0, 1, (3, 12)).astype(np.float32)
    expected = np.concatenate([jax.jit(joined)(row[None]) for row in z])
    np.testing.assert_allclose(
        decode_in_page(page, program, z), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "choices",
    [
        {"latent_dims": (2, 3), "hidden": (8,), "level_hidden": (8,)},
        {"network": "conv", "groups": (1, 4), "depth": 1, "width": 8},
    ],
    ids=["mlp", "conv"],
)
def test_levels_are_decoded_as_jax_does(page, choices):
    run = hierarchical(**choices)
    content = describe_explorer(run, run.data, ExplorerConfig(with_encoder=True))
    program = content["decoder"]
    rows = encode(run, run.data.test)[:4]
    decoded = mean_of(run.decode(as_codes(run, rows).levels))
    expected = np.asarray(decoded).reshape(4, -1)
    every = {"kept": len(run.level_shapes), "temperature": 1}
    found = decode_in_page(page, program, rows, **every)
    assert np.abs(found - expected).max() < 2 / 255
    top = as_codes(run, rows).levels[0]
    drawn = run.draw_levels(4, key=jax.random.key(0), given=[top], temperature=0.0)
    expected = np.asarray(mean_of(run.decode(drawn))).reshape(4, -1)
    found = decode_in_page(page, program, rows, kept=1, temperature=0)
    assert np.abs(found - expected).max() < 2 / 255
    # Each level's dimensions by KL, which sums to the level's.
    expected = kl_per_level(run, run.data.test, key=draw_key(run, Stream.FIGURES))
    every_dimension = [d for order in content["order"] for d in order]
    assert sorted(every_dimension) == list(range(rows.shape[1]))
    for order, kl in zip(content["order"], expected, strict=True):
        found = np.array(content["kl"])[order]
        np.testing.assert_allclose(found.sum(), kl, rtol=1e-4)
        assert (np.diff(found) <= 0).all()
    json.dumps(content)


def test_columns_have_their_own_units(page, tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        f"{170 + 9 * rng.normal()},{rng.integers(0, 5)},{'xyz'[i % 3]},{i % 2}"
        for i in range(80)
    ]
    path = tmp_path / "people.csv"
    path.write_text("\n".join(["height,count,kind,smokes", *lines]))
    data = load(path)
    run = untrained(VAEConfig(latent_dim=2, hidden=(8,)).build(data), data)
    content = describe_explorer(run, data)
    z = rng.normal(0, 1, (5, 2))
    expected = mean_of(run.decode(z.astype(np.float32)))
    found = decode_in_page(page, content["decoder"], z)
    assert np.abs(found - np.asarray(expected)).max() < 5e-3
    height = content["columns"][0]
    own = np.asarray(run.preprocessing.inverse(expected))[:, 0]
    grid = np.linspace(*height["grid"], len(height["own"]))
    inside = (found[:, 0] > grid[0]) & (found[:, 0] < grid[-1])
    shown = np.interp(found[:, 0], grid, height["own"])
    np.testing.assert_allclose(shown[inside], own[inside], atol=0.1)
    kinds = [column["kind"] for column in content["columns"]]
    assert kinds == ["real", "integer", "category", "binary"]
    for i, column in enumerate(
        content["columns"][:2]
    ):  # examples as the table has them
        packed = np.frombuffer(base64.b64decode(column["examples"]), "<f4")
        rows = content["numbers"]
        np.testing.assert_allclose(packed, data.test.x[rows, i], rtol=1e-6)


def test_series_have_a_scale_in_their_own_units(tab, tmp_path):
    """It holds for all examples: no picture has a scale of its own."""
    rng = np.random.default_rng(0)
    start, height = rng.uniform(0, 6, (60, 1, 1)), rng.uniform(1, 5, (60, 1, 1))
    x = 20 + height * np.sin(start + np.linspace(0, 6, 12)[:, None])
    data = from_arrays(x.astype(np.float32))
    run = untrained(VAEConfig(latent_dim=2, hidden=(8,)).build(data), data)
    small = jax.tree.map(lambda leaf: 0.1 * leaf, run.variables)
    run = dataclasses.replace(run, variables=small)  # within the range of the examples
    open_page(tab, pages.write_explorer(run, data, tmp_path / "series.html"))
    tab.execute_script(
        "window.written = [];"
        "const write = CanvasRenderingContext2D.prototype.fillText;"
        "CanvasRenderingContext2D.prototype.fillText = function(text, x, y) {"
        " if (this.canvas.id == 'picture') written.push([text, y]);"
        " return write.call(this, text, x, y); };"
    )
    for value in (-1, 2):
        tab.execute_script(
            "written.length = 0;"
            "const s = document.querySelector('.slider input');"
            f"s.value = {value}; s.dispatchEvent(new Event('input'));"
        )
        texts = wait(tab, "return written.length ? written : null")
        low, middle, high, *others = texts
        shown = np.array([float(low[0]), float(middle[0]), float(high[0])])
        ends = data.test.x.min(), data.test.x.max()
        np.testing.assert_allclose(shown[[0, 2]], ends, atol=0.01)
        np.testing.assert_allclose(shown[1], np.mean(ends), atol=0.01)
        assert low[1] > middle[1] > high[1]
        assert [text for text, _ in others] == ["step 1", "12", "x1"]


def pixels(page):
    return np.array(page.execute_script("return Array.from(explorer.pixels)"))


def test_a_slider_changes_the_picture(page):
    page.execute_script("document.getElementById('to-mean').click()")
    before = pixels(page)
    page.execute_script(
        "const s = document.querySelector('.slider input');"
        "s.value = 2; s.dispatchEvent(new Event('input'));"
    )
    assert np.abs(pixels(page) - before).max() > 0.01
    d = page.execute_script("return explorer.data.order[0][0]")
    assert page.execute_script("return explorer.state.z[arguments[0]]", d) == 2


def test_moving_the_pointer_decodes_what_is_under_it(page):
    from selenium.webdriver import ActionChains

    page.execute_script("explorer.latencies.length = 0")
    overlay = page.find_element("id", "overlay")
    seen = []
    for x in range(-120, 130, 20):
        ActionChains(page, duration=0).move_to_element_with_offset(
            overlay, x, x // 3
        ).perform()
        seen.append(pixels(page).tobytes())
    assert len(set(seen)) > 5
    median = wait(page, "return explorer.latencies.length && explorer.median()")
    assert median < 16  # milliseconds


def test_the_path_between_two_points_plays(page):
    from selenium.webdriver import ActionChains

    page.execute_script("document.querySelector('[data-tool=path]').click()")
    overlay = page.find_element("id", "overlay")
    for x in (-150, 150):
        ActionChains(page, duration=0).move_to_element_with_offset(
            overlay, x, 40
        ).click().perform()
    wait(page, "return explorer.state.playing")
    first = page.execute_script("return explorer.state.position")
    wait(page, f"return explorer.state.position !== {first}")
    page.find_element("id", "overlay").send_keys(" ")
    assert not page.execute_script("return explorer.state.playing")
    page.execute_script("document.querySelector('[data-tool=explore]').click()")


def test_four_points_span_a_square(page):
    from selenium.webdriver import ActionChains

    page.execute_script("document.querySelector('[data-tool=square]').click()")
    overlay = page.find_element("id", "overlay")
    for x, y in ((-150, -90), (150, -90), (-150, 90), (150, 90)):
        ActionChains(page, duration=0).move_to_element_with_offset(
            overlay, x, y
        ).click().perform()
    width = "return document.getElementById('picture').width"
    assert wait(page, f"{width} > 8 && document.getElementById('picture').width") == 62
    page.execute_script("document.querySelector('[data-tool=explore]').click()")
    assert page.execute_script(width) == 8


def test_classes_toggle(page):
    drawn = (
        "explorer.scatter.render();"
        "return [...explorer.scatter.index.values()].flat().length"
    )
    every = page.execute_script(drawn)
    button = page.find_element("css selector", "#legend button")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.execute_script(drawn) == every - 10
    button.click()
    assert page.execute_script(drawn) == every


def test_keys_move_the_code(page):
    page.execute_script("document.getElementById('to-mean').click()")
    place = "return explorer.placeOf(explorer.state.z)"
    before = page.execute_script(place)
    page.find_element("id", "overlay").send_keys("\ue014")  # right
    after = page.execute_script(place)
    assert after[0] > before[0]
    assert abs(after[1] - before[1]) < 1e-3


def test_examples_draws_and_links(page):
    page.execute_script("explorer.setExample(3)")
    first = page.execute_script("return Array.from(explorer.state.z)")
    page.find_element("id", "to-posterior").click()
    assert page.execute_script("return Array.from(explorer.state.z)") != first
    page.find_element("id", "to-prior").click()
    assert page.execute_script("return explorer.state.example") == -1
    page.execute_script("location.hash = 'z=0.5,-1,2'")
    wait(page, "return explorer.state.z[2] === 2")
    page.find_element("id", "help").click()
    assert "--workdir=RUN" in page.find_element("id", "panel-text").text
    page.find_element("css selector", "#panel button").click()


def encode_in_page(page, x, noise=0.0):
    script = """
    const [x, noise, done] = arguments;
    explorer.encode(Float32Array.from(x), noise, (z) => done(Array.from(z)));
    """
    return page.execute_async_script(script, x.reshape(-1).tolist(), noise)


def test_the_encoder_is_that_of_jax_and_its_draws_have_its_deviations(page):
    run = vae(hidden=(8,))
    x = np.random.default_rng(2).uniform(size=(1, 8, 8, 1)).astype(np.float32)
    q = run.encode(x)
    mean = encode_in_page(page, x)
    np.testing.assert_allclose(mean, q.mean[0], atol=0.02)
    draws = np.array([encode_in_page(page, x, 0.5) for _ in range(60)])
    ratio = (draws - mean).std(axis=0) / (0.5 * np.asarray(q.std[0]))
    assert (np.abs(ratio - 1) < 0.5).all()


def test_an_image_that_is_dropped_is_encoded(page):
    x = np.random.default_rng(3).integers(0, 256, (8, 8)).astype(np.uint8)
    script = """
    const [pixels, done] = arguments;
    const canvas = new OffscreenCanvas(8, 8);
    const context = canvas.getContext("2d");
    const image = context.createImageData(8, 8);
    pixels.forEach((v, i) => image.data.set([v, v, v, 255], 4 * i));
    context.putImageData(image, 0, 0);
    canvas.convertToBlob().then((blob) => {
      const files = new DataTransfer();
      files.items.add(new File([blob], "own.png", { type: "image/png" }));
      const overlay = document.getElementById("overlay");
      const more = { dataTransfer: files, bubbles: true, cancelable: true };
      for (const type of ["dragover", "drop"])
        overlay.dispatchEvent(new DragEvent(type, more));
      done();
    });
    """
    page.execute_script("explorer.setExample(0)")
    page.execute_async_script(script, x.reshape(-1).tolist())
    wait(page, "return explorer.state.own")
    caption = page.find_element("id", "original-caption")
    assert caption.text == "your image"
    expected = vae(hidden=(8,)).encode(x[None, ..., None]).mean[0]
    z = page.execute_script("return Array.from(explorer.state.z)")
    np.testing.assert_allclose(z, expected, atol=0.02)
    page.find_element("id", "to-posterior").click()
    wait(page, f"return explorer.state.z[0] !== {z[0]}")
    assert caption.text == "your image"


def touch(page, kind, *places):
    """Fingers on the scatter, at pixels from its centre."""
    box = page.find_element("id", "overlay").rect
    left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    points = [{"x": left + x, "y": top + y, "id": i} for i, (x, y) in enumerate(places)]
    page.execute_cdp_cmd(
        "Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points}
    )


def test_a_finger_decodes_and_two_fingers_zoom(page):
    page.execute_script("document.getElementById('to-mean').click()")
    scale = "return explorer.scatter.scale"
    before, first = pixels(page), page.execute_script(scale)
    touch(page, "Start", (-90, -60))
    touch(page, "Move", (60, 40))
    wait(page, "return explorer.state.preview")
    assert np.abs(pixels(page) - before).max() > 0.01
    touch(page, "End")
    wait(page, "return !explorer.state.preview")  # the code is kept
    kept = page.execute_script("return Array.from(explorer.state.z)")
    touch(page, "Start", (-20, 0))
    touch(page, "Start", (-20, 0), (20, 0))
    for x in (40, 60, 80):
        touch(page, "Move", (-x, 0), (x, 0))
    touch(page, "End")
    wait(page, f"return explorer.scatter.scale > {2 * first}")
    assert page.execute_script("return Array.from(explorer.state.z)") == kept
    page.find_element("id", "fit").click()


def test_screens_of_three_sizes(page, tmp_path):
    def set_size(width, height, mobile=False):
        page.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {
                "width": width,
                "height": height,
                "deviceScaleFactor": 1,
                "mobile": mobile,
            },
        )

    sizes = "const e = document.documentElement;"
    sizes += "return [e.scrollWidth, e.scrollHeight, innerHeight]"
    try:
        for width, height in ((1280, 720), (3840, 2160), (390, 844)):
            set_size(width, height, mobile=width < 800)
            wide, high, shown = page.execute_script(sizes)
            assert wide <= width
            assert high <= shown or width < 800  # a phone scrolls down
            for name in ("picture", "overlay", "play"):
                box = page.find_element("id", name).rect
                assert box["width"] > 20
                assert box["x"] + box["width"] <= width
            path = tmp_path / f"{width}.png"
            page.save_screenshot(str(path))
            assert path.stat().st_size > 5_000
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.skipif(not AXE.exists(), reason="needs npm ci in explorer/src")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_violation(page, theme):
    page.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
    page.execute_script(AXE.read_text())
    script = """
    const done = arguments[0];
    axe.run().then(({ violations }) => done(violations.map(({ id }) => id)));
    """
    for is_open in (False, True):
        if is_open:
            page.find_element("id", "help").click()
        assert page.execute_async_script(script) == []
    page.find_element("css selector", "#panel button").click()


def test_arrangements_of_codes_are_views(tab, tmp_path, monkeypatch):
    def arrange(codes):
        rows = np.arange(0, len(codes), 2)
        return codes[rows, :2] * 3, rows

    monkeypatch.setattr(pages, "EMBEDDINGS", {"t-SNE": arrange, "UMAP": arrange})
    run = vae(hidden=(8,))
    config = ExplorerConfig(with_tsne=True, with_umap=True)
    path = tmp_path / "page.html"
    path.write_text(make_page(run, run.data, config))
    open_page(tab, path)
    options = tab.find_elements("css selector", "#view option")
    assert [option.text for option in options[1:]] == ["PCA", "t-SNE", "UMAP"]
    options[-1].click()
    xy = tab.execute_script("return Array.from(explorer.scatter.xy)")
    rows = np.array(xy, float).reshape(-1, 2)
    expected = 3 * np.asarray(run.encode(run.data.test.x).mean)[::2, :2]
    np.testing.assert_allclose(rows[::2], expected, rtol=1e-3)
    assert np.isnan(rows[1::2]).all()
    flags = tab.execute_script("return explorer.data.command")
    assert flags.endswith("--workdir=RUN --with_tsne --with_umap")


def test_the_sliders_of_every_level_and_dimension(tab, tmp_path):
    run = hierarchical(latent_dims=(2, 70), hidden=(8,), level_hidden=(8,))
    path = run.explore(tmp_path / "page.html")
    open_page(tab, path)
    assert len(tab.find_elements("css selector", ".slider")) == 2
    tab.find_elements("css selector", "#level-label option")[1].click()
    assert len(tab.find_elements("css selector", ".slider")) == 64
    tab.find_element("css selector", "#sliders button").click()
    assert len(tab.find_elements("css selector", ".slider")) == 70
    tab.find_elements("css selector", "#levels option")[0].click()
    tab.execute_script(
        "const s = document.querySelector('.slider input');"
        "s.value = 1; s.dispatchEvent(new Event('input'));"
    )
    assert tab.execute_script("return explorer.state.kept") == 2


@pytest.mark.parametrize("flags", [{"with_tsne": True}, {"with_encoder": True}])
def test_choices_without_effect_are_refused(flags):
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    data = from_arrays(rows, test_size=0.5)
    run = untrained(VAEConfig(latent_dim=2, hidden=(4,)).build(data), data)
    with pytest.raises(InputError, match=f"{next(iter(flags))}.* must be left out"):
        describe_explorer(run, data, ExplorerConfig(**flags))


def test_of_a_slow_decoder_the_newest_code_wins(page):
    script = """
    const done = arguments[0];
    const runner = explorer.makeRunner(-1);  // whose every call counts as slow
    const codes = [[0, 0, 0], [1, 0, 0], [0, 2, 1]];
    const found = [];
    codes.forEach((z, k) => runner.ask("main", { inputs: { z: Float32Array.from(z) } },
      (x) => {
        found.push([k, Array.from(x)]);
        if (k === 2) done([Boolean(runner.worker), found, explorer.decodeNow(z)]);
      }));
    """
    has_worker, found, expected = page.execute_async_script(script)
    assert has_worker
    assert [k for k, _ in found] == [0, 2]  # the second was waiting, and is left out
    assert found[-1][1] == expected


def test_without_a_condition_s_prior_the_kl_is_that_from_the_normal_prior():
    run = vae(hidden=(8,), conditional="concat")
    content = describe_explorer(run, run.data)
    q = run.encode(run.data.test.x, run.data.test.condition)
    mean, std = (np.asarray(a, np.float64) for a in (q.mean, q.std))
    expected = 0.5 * (mean**2 + std**2 - 1 - np.log(std**2))
    np.testing.assert_allclose(content["kl"], expected.mean(0), rtol=1e-4)
    assert content["order"] == [np.argsort(-expected.mean(0)).tolist()]


def test_one_screen_without_scrolling(page):
    sizes = "return [document.documentElement.scrollHeight, innerHeight]"
    height, seen = page.execute_script(sizes)
    assert height <= seen


def codebook(num_codes=5):
    data = make_data()
    model = build_vqvae(data.shape, num_codes=num_codes, code_width=2, filters=(2,))
    return untrained(model, data)


def test_entries_are_decoded_as_jax_does(page):
    run = codebook()
    content = describe_explorer(run, run.data, ExplorerConfig(with_encoder=True))
    x = run.data.test.x[:6]
    numbers = np.asarray(run.encode(x).indices).reshape(6, -1)
    expected = np.asarray(run.reconstruct(x)).reshape(6, -1)
    found = decode_in_page(page, content["decoder"], numbers)
    assert np.abs(found - expected).max() < 2 / 255
    assert content["levels"] == [numbers.shape[1]]
    assert len(content["codebook"]["xy"]) == 2 * content["count"]


def test_large_codebooks_are_refused(tmp_path):
    with pytest.raises(InputError, match="2048 entries at most, got 3000"):
        codebook(3000).explore(tmp_path / "page.html")


def test_the_page_is_small_and_its_text_is_escaped(tmp_path):
    run = vae(hidden=(8,))
    path = run.explore(tmp_path / "folder" / "page.html", num_points=7)
    text = path.read_text()
    assert path.stat().st_size < 100_000
    assert text.count("</script>") == 2
    content = describe_explorer(run, run.data, ExplorerConfig(num_points=7))
    assert content["count"] == 7


def test_the_built_page_is_that_of_its_sources(tmp_path):
    built = PACKAGE.joinpath("template.html").read_text()
    names = re.search(r"SOURCES = \[(.*?)\]", (SOURCE / "build.mjs").read_text())
    digest = hashlib.sha256()
    for name in re.findall(r'"(.*?)"', names[1]):
        digest.update(f"{name}\n{(SOURCE / name).read_text()}".encode())
    assert digest.hexdigest() in built.splitlines()[1]
    if not shutil.which("node") or not (SOURCE / "node_modules/esbuild").exists():
        return  # npm ci in that folder, and the page is also built again
    again = tmp_path / "page.html"
    command = ["node", "build.mjs", str(again)]
    subprocess.run(command, cwd=SOURCE, check=True, env=dict(os.environ))
    assert again.read_text() == built


def test_clicks_change_and_swap_the_codes_of_a_codebook(tab, tmp_path):
    path = tmp_path / "codes.html"
    codebook().explore(path)
    open_page(tab, path)
    z = "return Array.from(explorer.state.z)"
    first, second = tab.find_elements("css selector", ".cells button")[:2]
    first.click()
    tab.execute_script(
        "const s = document.querySelector('#sliders input');"
        "s.value = 4; s.dispatchEvent(new Event('input'));"
        "explorer.state.z[1] = 2;"
    )
    before = pixels(tab)
    assert tab.execute_script(z)[:2] == [4, 2]
    tab.execute_script(
        "arguments[0].dispatchEvent(new MouseEvent('click', { shiftKey: true }))",
        second,
    )
    assert tab.execute_script(z)[:2] == [2, 4]
    assert np.abs(pixels(tab) - before).max() > 0
