"""The Hugging Face Hub as gigasr uses it, against a server on this machine: what is asked for, said and kept."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from gigasr.models.hub import HubName, choose_weights
from gigasr.models.zoo import convert_weights, find_model

ROOT = Path(__file__).parents[1]
COMMITS = {"main": "a" * 40, "v1": "b" * 40}


class Hub(ThreadingHTTPServer):
    """A server with the repository owner/name, whose main has one more file than v1."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = files, []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:  # noqa: N802
        path = urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[:4] == ["api", "models", "owner", "name"]:
            revision = parts[5] if len(parts) > 5 else "main"
            if revision in COMMITS:
                self.answer({"id": "owner/name", "sha": COMMITS[revision], "siblings": self.siblings(revision)})
                return
        elif parts[:3] == ["owner", "name", "resolve"] and parts[4] in self.server.files:
            commit = COMMITS.get(parts[3], parts[3])
            self.send(200, self.server.files[parts[4]], {"ETag": f'"{parts[4]}"', "X-Repo-Commit": commit})
            return
        missing = "RevisionNotFound" if parts[2:4] == ["owner", "name"] else "RepoNotFound"
        self.send(404, b"{}", {"X-Error-Code": missing})

    do_HEAD = do_GET  # noqa: N815

    def siblings(self, revision: str) -> list[dict[str, object]]:
        names = [name for name in self.server.files if revision == "main" or name != "extra.bin"]
        return [{"rfilename": name, "size": len(self.server.files[name])} for name in names]

    def answer(self, content: object) -> None:
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, text in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture(scope="module")
def hub(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub") / "folder"
    convert_weights(tiny_weights, folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with Hub(files | {"model.ckpt": b"pickled", "extra.bin": b"more"}) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def asked(hub: Hub) -> list[str]:
    """What the server is asked for in a test."""
    hub.asked.clear()
    return hub.asked


def gigasr(*arguments: object, address: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as the Hub's client reads the environment when it is imported."""
    known = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_TOKEN": "secret", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "gigasr", *map(str, arguments)]
    environment = known | own | variables
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_only_the_weights_and_their_config_are_fetched_and_their_size_is_said_before(
    hub: Hub, asked: list[str], tmp_path: Path
) -> None:
    run = gigasr("models", "fetch", "owner/name", address=hub.address, home=tmp_path)
    assert run.returncode == 0, run.stderr
    path = Path(run.stdout.strip())
    assert path.read_bytes() == hub.files["model.safetensors"]
    assert sorted(each.name for each in path.parent.iterdir()) == ["config.json", "model.safetensors"]
    megabytes = sum(len(hub.files[name]) for name in ("config.json", "model.safetensors")) / 1e6
    said = f"owner/name: fetching config.json and model.safetensors, {megabytes:.1f} MB, from {hub.address}"
    assert said in run.stderr
    got = {line.rpartition("/")[2] for line in asked if line.startswith("GET /owner")}
    assert got == {"config.json", "model.safetensors"}
    asked.clear()
    again = gigasr("models", "info", "owner/name", address=hub.address, home=tmp_path)
    assert f"file        {path}" in again.stdout, again.stderr
    assert asked == []  # what is in the cache is used without asking


def test_a_revision_is_the_one_that_is_fetched(hub: Hub, asked: list[str], tmp_path: Path) -> None:
    run = gigasr("models", "fetch", "owner/name@v1", address=hub.address, home=tmp_path)
    assert Path(run.stdout.strip()).parent.name == COMMITS["v1"], run.stderr
    assert all("v1" in line for line in asked)


def test_an_unknown_name_or_no_network_ends_in_one_line(hub: Hub, tmp_path: Path) -> None:
    unknown = gigasr("models", "fetch", "owner/none", address=hub.address, home=tmp_path)
    assert unknown.stderr.startswith("Error: model: expected a model of the Hugging Face Hub, got 'owner/none'")
    alone = gigasr("upscale", ROOT / "examples", "-n", "owner/name", address="http://127.0.0.1:9", home=tmp_path)
    assert alone.stderr.startswith("Error: owner/name: expected it in the cache or the Hugging Face Hub within reach")
    assert "Connection refused" in alone.stderr
    assert [(run.returncode, run.stderr.count("\n")) for run in (unknown, alone)] == [(1, 1)] * 2


def test_a_folder_for_the_hub_is_whole_under_a_licence_that_the_hub_knows(tmp_path: Path) -> None:
    convert_weights(find_model("upsampler_lite"), tmp_path / "lite")
    assert {path.name for path in (tmp_path / "lite").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert b"\nlicense: apache-2.0\n" in (tmp_path / "lite" / "README.md").read_bytes()


def test_names_of_the_hub_are_told_from_paths() -> None:
    assert HubName.parse("owner/name@v1.0") == HubName("owner/name", "v1.0")
    assert HubName.parse("owner/name") == HubName("owner/name", None)
    for path in ("upsampler_lite", "./a/b", "a/b.pth", "a/b.onnx", "a/b/c", "C:\\a"):
        assert HubName.parse(path) is None


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.ckpt", "model.safetensors", "config.json"], "model.safetensors"),
        (["a.safetensors", "model.safetensors", "onnx/model.onnx"], "model.safetensors"),
        (["a.pth", "a.onnx"], "a.pth"),
        (["a.onnx", "README.md"], "a.onnx"),
    ],
)
def test_of_several_files_the_weights_are_chosen(names: list[str], chosen: str) -> None:
    assert choose_weights(names, "folder") == chosen


def test_weights_that_cannot_be_told_apart_are_named() -> None:
    with pytest.raises(ValueError, match="expected one file of weights, got a.pth, b.pth; give one"):
        choose_weights(["a.pth", "b.pth"], "folder")
