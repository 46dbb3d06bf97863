"""Downloads from a small server on this machine."""

import hashlib
import http.server
import threading
import time

import pytest

from flaxvae.data.download import DownloadError, download

CONTENT = bytes(range(256)) * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; knows ranges; breaks off as the server object says."""

    def do_GET(self):
        self.server.requests.append(self.headers.get("Range"))
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/silent":
            time.sleep(1.0)
            return
        first = 0
        wanted = self.headers.get("Range")
        if wanted and self.server.knows_ranges:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if first >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        body = CONTENT[first:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.break_after])

    def log_message(self, *args):
        """Keeps the test's output clean."""


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.knows_ranges, server.break_after = [], True, None
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetches_once_and_checks(server, tmp_path):
    path = tmp_path / "new" / "file"
    download(f"{server.url}/file", path, MD5)
    download(f"{server.url}/file", path, MD5)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None]
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_broken_transfer_is_continued(server, tmp_path, knows_ranges):
    path = tmp_path / "file"
    server.break_after = 100_000
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1 could not be reached"):
        download(f"{server.url}/file", path, MD5)
    assert not path.exists()
    server.break_after, server.knows_ranges = None, knows_ranges
    download(f"{server.url}/file", path, MD5)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-"]


def test_a_part_that_is_already_whole_is_accepted(server, tmp_path):
    path = tmp_path / "file"
    (tmp_path / "file.part").write_bytes(CONTENT)
    download(f"{server.url}/file", path, MD5)
    assert path.read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing_behind(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"something else")
    with pytest.raises(DownloadError, match="wrong checksum"):
        download(f"{server.url}/file", tmp_path / "file", MD5)
    assert list(tmp_path.glob("file*")) == []
    download(f"{server.url}/file", tmp_path / "file", MD5)


def test_a_servers_error_is_reported(server, tmp_path):
    with pytest.raises(DownloadError, match="Not Found"):
        download(f"{server.url}/missing", tmp_path / "file", MD5)


def test_no_server_and_no_answer(server, tmp_path):
    with pytest.raises(DownloadError, match="refused"):
        download("http://127.0.0.1:9/file", tmp_path / "file", MD5)
    began = time.monotonic()
    with pytest.raises(DownloadError, match="could not be reached"):
        download(f"{server.url}/silent", tmp_path / "file", MD5, timeout=0.2)
    assert time.monotonic() - began < 0.9


def test_a_name_look_up_that_hangs_is_given_up(tmp_path, monkeypatch):
    stop = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: stop.wait(5))
    began = time.monotonic()
    with pytest.raises(DownloadError, match=r"no answer within 0\.2 seconds"):
        download("http://example.invalid/file", tmp_path / "file", MD5, timeout=0.2)
    assert time.monotonic() - began < 2
    stop.set()
