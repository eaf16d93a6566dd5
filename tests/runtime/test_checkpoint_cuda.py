"""Processes with GPU memory to disk and back: the stand-in driver suspends them, a real CRIU dumps them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from saved_scenes import Saved, as_parent

from conftest import CI, Tool
from leftovers import until
from standins import Drivers, compilers, gpu_ids

pytestmark = [
    pytest.mark.root,
    pytest.mark.criu,
    pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang"),
]
GPU0, GPU1, *_ = gpu_ids()


@pytest.fixture(autouse=True)
def _parent() -> Iterator[None]:
    with as_parent():
        yield


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


@pytest.mark.parametrize("program", ["cuda", "cuda_pair"])
def test_gpu_memory_goes_to_disk_and_comes_back(
    tool: Tool, tmp_path: Path, image: Path, drivers: Drivers, program: str
) -> None:
    env = drivers.world(tmp_path.name)
    with Saved(program, tmp_path, env) as saved:
        done = tool("checkpoint", str(saved.pid), str(image), "--force", env=env)
        assert done.returncode == 0, done.stderr
        assert saved.is_gone()
        manifest = json.loads((image / "warmspare.json").read_bytes())
        held = [one["vram_mib"] for one in manifest["processes"] if one["cuda"]]
        assert len(held) == len(saved.pids)
        assert all(one[GPU0] >= 4 for one in held)
        assert manifest["made"]["driver"] == "999.88.77"
        assert tool("inspect", str(image), env=env).returncode == 0
        restored = tool("restore", str(image), env=env)
        assert restored.returncode == 0, restored.stderr
        assert saved.goes_on()
        # The image is as good as before, also after a second life.
        lines = saved.beats.read_bytes()
        assert lines


def test_another_gpu_takes_its_place(tool: Tool, tmp_path: Path, image: Path, drivers: Drivers) -> None:
    env = drivers.world(tmp_path.name)
    with Saved("cuda", tmp_path, env) as saved:
        assert tool("checkpoint", str(saved.pid), str(image), "--force", env=env).returncode == 0
        assert saved.is_gone()
        wrong = tool("restore", str(image), "--to", "GPU-none", env=env)
        assert (wrong.returncode, wrong.stderr.partition(";")[0]) == (1, "warmspare: no GPU is called 'GPU-none'")
        restored = tool("restore", str(image), "--to", GPU1, env=env)
        assert restored.returncode == 0, restored.stderr
        assert saved.goes_on()


def test_another_driver_or_kind_of_gpu_is_refused_with_the_difference(
    tool: Tool, tmp_path: Path, image: Path, drivers: Drivers
) -> None:
    env = drivers.world(tmp_path.name)
    with Saved("cuda", tmp_path, env) as saved:
        assert tool("checkpoint", str(saved.pid), str(image), "--force", env=env).returncode == 0
        assert saved.is_gone()
        manifest = json.loads((image / "warmspare.json").read_bytes())
        manifest["made"]["driver"] = "580.1"
        kind = manifest["made"]["gpus"][0]["name"]
        manifest["made"]["gpus"][0]["name"] = "Tesla K80"
        (image / "warmspare.json").write_text(json.dumps(manifest))
        for command in (["restore"], ["restore", "--force"], ["inspect"]):
            refused = tool(*command, str(image), env=env)
            assert refused.returncode == 1
            said = f"driver: 580.1 in the image, 999.88.77 here; GPU {GPU0}: Tesla K80 in the image, {kind} here"
            assert said in refused.stdout + refused.stderr
        assert saved.is_gone()


def test_a_checkpoint_that_the_driver_refuses_leaves_it_running(
    tool: Tool, tmp_path: Path, image: Path, drivers: Drivers
) -> None:
    env = drivers.world(tmp_path.name, "checkpoint target nth1: returns 801")
    with Saved("cuda", tmp_path, env) as saved:
        refused = tool("checkpoint", str(saved.pid), str(image), "--force", env=env)
        assert refused.returncode == 1, refused.stderr
        assert "801 CUDA_ERROR_NOT_SUPPORTED" in refused.stderr
        assert not image.exists()
        assert saved.goes_on()


def test_a_dump_that_criu_refuses_gives_the_gpu_memory_back(
    tool: Tool, tmp_path: Path, image: Path, drivers: Drivers
) -> None:
    env = drivers.world(tmp_path.name)
    with Saved("cuda", tmp_path, env) as saved:
        refused = tool("checkpoint", str(saved.pid), str(image), "--force", env={**env, "WARMSPARE_CRIU": "/bin/false"})
        assert refused.returncode == 1
        assert re.search(
            r"not checkpointed, process \d+ \(.*\) runs on: CRIU could not dump it \(status 1\)", refused.stderr
        )
        assert not image.exists()
        assert saved.goes_on()


def test_a_restore_that_the_driver_refuses_ends_the_wreck_and_keeps_the_image(
    tool: Tool, tmp_path: Path, image: Path, drivers: Drivers
) -> None:
    # The process has the plan open, and CRIU wants a file as it was: its size stays.
    fate = "cuCheckpointProcessRestore *: returns 999\n"
    env = drivers.world(tmp_path.name, fate.replace("cu", "no").strip())
    with Saved("cuda", tmp_path, env) as saved:
        assert tool("checkpoint", str(saved.pid), str(image), "--force", env=env).returncode == 0
        assert saved.is_gone()
        before = saved.beats.read_bytes()
        plan = Path(env["LD_LIBRARY_PATH"].split(":")[0]) / "plan"
        plan.write_text(fate)
        refused = tool("restore", str(image), env=env)
        assert refused.returncode == 1, refused.stderr
        assert "999 CUDA_ERROR_UNKNOWN" in refused.stderr
        assert refused.stderr.endswith("what was restored has been ended, and the image is whole\n")
        assert saved.is_gone()
        plan.write_text(fate.replace("cu", "no"))
        saved.beats.write_bytes(before)
        assert tool("restore", str(image), env=env).returncode == 0
        assert saved.goes_on()


def test_too_little_free_gpu_memory_is_seen_before_anything_is_restored(
    tool: Tool, tmp_path: Path, image: Path, drivers: Drivers
) -> None:
    env = drivers.world(tmp_path.name)
    with Saved("cuda", tmp_path, env) as saved:
        assert tool("checkpoint", str(saved.pid), str(image), "--force", env=env).returncode == 0
        assert saved.is_gone()
        manifest = json.loads((image / "warmspare.json").read_bytes())
        manifest["processes"][0]["vram_mib"][GPU0] = 10**6
        (image / "warmspare.json").write_text(json.dumps(manifest))
        refused = tool("restore", str(image), env=env)
        assert refused.returncode == 1
        assert re.search(rf"{GPU0} has \d+ MiB free, and 1000000 MiB are needed", refused.stderr)
        assert until(lambda: not Path(f"/proc/{saved.pid}").exists())
