"""The containers name only what exists: services, volumes, files, policies, commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from router.policy.policy import load_policy

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service.get("image") == "locum"]


def with_defaults(text: str) -> str:
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_services_depend_on_services_and_mount_what_exists() -> None:
    for name, service in SERVICES.items():
        network = str(service.get("network_mode", "")).removeprefix("service:")
        assert {*service.get("depends_on", {}), *filter(None, [network])} <= SERVICES.keys(), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], (name, source)


@pytest.mark.parametrize("service", OURS)
def test_every_container_of_ours_runs_a_command_that_exists(service: str) -> None:
    arguments = [with_defaults(argument) for argument in SERVICES[service]["command"]]
    # With --help, options are read, so that an unknown one is an error, but nothing is run.
    ran = subprocess.run(
        [sys.executable, "-m", "router.cli", *arguments, "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert load_policy(ROOT / arguments[arguments.index("--policy") + 1])


def test_the_gpu_profile_has_a_policy_for_its_student() -> None:
    policy = load_policy(ROOT / "policies" / "vllm.yaml")
    where = urlsplit(policy.student.url or "")
    assert (where.hostname, where.port) == ("vllm", 8000)
    assert SERVICES["vllm"]["profiles"] == ["gpu"]
    assert policy.student.model == SERVICES["vllm"]["command"][-1]


def test_prometheus_and_grafana_look_where_the_services_are() -> None:
    scrape = yaml.safe_load((ROOT / "dashboards/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert scrape[0]["static_configs"][0]["targets"] == ["proxy:8080"]
    (source,) = yaml.safe_load((ROOT / "dashboards/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert urlsplit(source["url"]).hostname in SERVICES
    (provider,) = yaml.safe_load((ROOT / "dashboards/provisioning/dashboards/locum.yml").read_text())["providers"]
    mounts = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts


def test_the_image_is_built_from_files_that_are_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text()
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    sources = [source for line in copies for source in line.split()]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}\n" in ignored, source


def test_no_published_port_is_open_to_the_network() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_torch_step_parses() -> None:
    subprocess.run(["sh", "-n", str(ROOT / "requirements" / "torch.sh")], check=True)
