"""Other people's gateways: nginx, if it is installed, and the LiteLLM proxy, installed here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from benchmarks.gateway.gateways import KEY, CannotStart, Gateway, Place, Start, free_port
from benchmarks.gateway.mock import TEACHER
from router.settings import Settings

REQUIREMENTS = Path(__file__).parents[2] / "requirements" / "runtime.txt"

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000;
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


def nginx(name: str, place: Place) -> Gateway:
    """A reverse proxy in C that looks into nothing.

    Raises:
        CannotStart: it is not on the PATH.
    """
    found = shutil.which("nginx")
    if found is None:
        raise CannotStart("nginx is not installed: `apt-get install nginx` brings it")
    folder, port = place.files(name), free_port()
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, upstream=place.upstream, port=port))
    process, log = place.start(name, [found, "-e", str(folder / "error.log"), "-c", str(file)])
    return Gateway(name, process, port, log)


def litellm(workers: int = 1) -> Start:
    """The LiteLLM proxy with a master key and without a database, as its documentation advises for production."""

    def start(name: str, place: Place) -> Gateway:
        command, folder, port = litellm_command(), place.files(name), free_port()
        backend = {"model": f"openai/{TEACHER}", "api_base": f"http://127.0.0.1:{place.upstream}/v1", "api_key": "sk-x"}
        config = {
            "model_list": [{"model_name": TEACHER, "litellm_params": backend}],
            "general_settings": {"master_key": KEY},
            "litellm_settings": {"set_verbose": False, "request_timeout": 600},
        }
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        at = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", str(workers)]
        at += ["--timeout_worker_healthcheck", "60"]  # a worker that still imports is not dead
        process, log = place.start(
            name, [*command, "--config", str(file), *at],
            LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_MODE="PRODUCTION", LITELLM_LOG="ERROR", PYTHONPATH="",
        )  # fmt: skip
        return Gateway(name, process, port, log, workers=workers)

    return start


def litellm_version() -> str:
    """The version that Locum itself is locked to."""
    found = re.search(r"^litellm==(\S+)", REQUIREMENTS.read_text(), re.M)
    assert found is not None
    return found[1]


def litellm_command() -> list[str]:
    """The proxy's command, in a virtual environment under the cache folder that is made where it is missing.

    Raises:
        CannotStart: pip could not install it.
    """
    home = Settings.from_env().cache.absolute() / "benchmarks" / f"litellm-{litellm_version()}"
    ready = home / "ready"
    if not ready.exists():
        asked = [f"litellm[proxy]=={litellm_version()}", "uvloop", "httptools"]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            subprocess.run([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", *asked], check=True)
        except subprocess.CalledProcessError as e:
            raise CannotStart(f"LiteLLM's proxy could not be installed into {home}: {e}") from e
        ready.touch()
    return [str(home / "bin" / "litellm")]
