"""The cloud: moto's server, which answers as AWS does: STS gives sessions, ECS deploys. Stands where your account is.

It does not enforce session policies, as AWS does; ``/moto-api/data.json`` shows what it was given.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

PORT, READY = int(os.environ["PORT"]), threading.Event()
AWS = DomainDispatcherApplication(create_backend_app)


def served(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """moto, and ``/healthz``."""
    if environ["PATH_INFO"] == "/healthz":
        start("200 OK" if READY.is_set() else "503 Service Unavailable", [("Content-Type", "application/json")])
        return [b"{}"]
    answer: Iterable[bytes] = AWS(environ, start)
    return answer


def main() -> None:
    """Serve an account with one ECS service."""
    server = make_server("127.0.0.1", PORT, served, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    key = {"aws_access_key_id": "AKIAADMIN", "aws_secret_access_key": "of-the-account", "region_name": "eu-central-1"}
    ecs = boto3.client("ecs", endpoint_url=f"http://127.0.0.1:{PORT}", **key)
    ecs.create_cluster(clusterName="shop")
    ecs.register_task_definition(family="shop-web", containerDefinitions=[{"name": "web", "image": "shop-web:1", "memory": 64}])
    ecs.create_service(cluster="shop", serviceName="shop-web", taskDefinition="shop-web", desiredCount=1)
    READY.set()
    threading.Event().wait()


if __name__ == "__main__":
    main()
