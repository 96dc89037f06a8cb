"""What deploys the service: read by the tools and schemas that judge such files, and by the service's own settings."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from stream_fp.config import load_settings
from stream_fp.metrics import Metrics
from tests.support.lacking import lacking

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
CHART: Final = DEPLOY / "helm" / "stream-fp"
REQUIRE_TOOLS: Final = "STREAM_FP_REQUIRE_DEPLOY_TOOLS"
#: What has to be said, and nothing else.
LEAST: Final = {"model": {"volume": {"persistentVolumeClaim": {"claimName": "models"}}}}
EVERYTHING: Final = LEAST | {
    "image": {"digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {
        "bootstrap_servers": "kafka-1:9093,kafka-2:9093",
        "security_protocol": "SASL_SSL",
        "sasl_username": "stream-fp",
        "sasl_password_file": "/run/secrets/stream-fp/sasl-password",
        "max_request_bytes": 16_777_216,
        "commit_interval_s": 0.5,
        "create_topics": False,
        "checkpoints": "30,40",
        "shutdown_grace_s": 45,
    },
    "secret": {"data": {"sasl-password": "a: b'\"$c"}},
    "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}],
    "extraVolumes": [{"name": "sidecars", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "sidecars", "mountPath": "/var/lib/stream-fp"}],
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "quant"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "quant", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "networkPolicy": {"kafka": {"ports": [9093], "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True},
    "autoscaling": {"enabled": True},
}


def tool(name: str) -> str:
    """Where a program is: beside this Python, or on the path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        lacking(f"no `{name}`, which comes with the extra `dev` for Linux on x86-64", required_by=REQUIRE_TOOLS)
    return found


def helm(*arguments: str, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [tool("helm"), *arguments, str(CHART), "--values", "-"]
    return subprocess.run(command, input=yaml.safe_dump(values), capture_output=True, text=True, check=False)


@lru_cache
def _rendered(values: str) -> str:
    ended = helm("template", "here", "--namespace", "quant", values=json.loads(values))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def rendered(values: dict[str, Any]) -> dict[str, Any]:
    """Manifests by kind, the name of the dashboard's behind it."""
    manifests = [manifest for manifest in yaml.safe_load_all(_rendered(json.dumps(values))) if manifest]
    return {
        manifest["kind"] + ("/dashboard" if manifest["metadata"]["name"].endswith("dashboard") else ""): manifest
        for manifest in manifests
    }


def test_dockerfile_has_nothing_to_complain_about() -> None:
    ended = subprocess.run([tool("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_image_runs_as_a_user_of_its_own_and_holds_no_model() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    assert stages[-1].split()[:3] == ["base", "AS", "service"]
    assert "USER 10001:10001" in next(stage for stage in stages if " AS base" in stage)
    assert all("USER" not in stage for stage in stages[-2:])
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY") and "--from" not in line]
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert {name for names in copied for name in names} == allowed
    assert "models" not in allowed


def test_compose_file_keeps_to_its_schema() -> None:
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_compose_file_names_what_is_there_and_settings_that_are_right() -> None:
    services = compose()["services"]
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose()["volumes"] or (DEPLOY / source).exists(), source
        for other in service.get("depends_on", {}):
            assert other in services
    environment = services["service"]["environment"]
    settings = load_settings({}, environment)
    assert settings.enabled
    inside = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INSIDE://{settings.bootstrap_servers}," in inside
    assert f"--topic={settings.input_topic}" in services["topics"]["command"]
    assert f"--output {settings.model_path}" in services["trainer"]["command"][0]
    assert f"--output-topic {settings.input_topic} " in services["feeder"]["command"][0]
    targets = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    assert targets == {"job_name": "stream-fp", "static_configs": [{"targets": [f"service:{settings.http_port}"]}]}
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/stream-fp.yaml").read_text())["providers"][0]
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted


def test_only_the_broker_and_the_helpers_of_a_compose_run_may_write_to_their_root() -> None:
    hardened = {name for name, service in compose()["services"].items() if service.get("read_only")}
    assert hardened == {"service", "trainer", "feeder", "prometheus"}


def compose() -> Any:  # noqa: ANN401 - a document
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.mark.parametrize("values", [LEAST, EVERYTHING], ids=["least", "everything"])
def test_chart_has_nothing_to_complain_about(values: dict[str, Any]) -> None:
    ended = helm("lint", "--strict", values=values)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("values", [LEAST, EVERYTHING], ids=["least", "everything"])
@pytest.mark.parametrize("version", ["1.30", "latest"])
def test_manifests_keep_to_the_schemas_of_kubernetes(values: dict[str, Any], version: str) -> None:
    release = kubernetes_validate.latest_version() if version == "latest" else version
    of_operators = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
    manifests = rendered(values)
    assert len(manifests) == (11 if values is EVERYTHING else 6)
    for kind, manifest in manifests.items():
        if kind not in of_operators:
            kubernetes_validate.validate(manifest, release, strict=True)


def test_pods_may_do_next_to_nothing() -> None:
    pod = rendered(EVERYTHING)["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert {mount["name"]: mount.get("readOnly", False) for mount in container["volumeMounts"]} == {
        "models": True, "secrets": True, "sidecars": False,
    }  # fmt: skip
    assert "limits" in container["resources"]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
    assert pod["terminationGracePeriodSeconds"] == 55


@pytest.mark.parametrize("values", [LEAST, EVERYTHING], ids=["least", "everything"])
def test_settings_reach_the_service_as_they_were_given(values: dict[str, Any]) -> None:
    manifests = rendered(values)
    container = manifests["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    environment = manifests["ConfigMap"]["data"] | {entry["name"]: entry["value"] for entry in container["env"]}
    settings = load_settings({}, environment)
    assert settings.enabled
    assert settings.model_path == "/models/v1.0.2"
    for name, value in values.get("settings", {}).items():
        expected = (30.0, 40.0) if name == "checkpoints" else value
        assert getattr(settings, name) == expected
    assert (
        settings.http_port == container["ports"][0]["containerPort"] == manifests["Service"]["spec"]["ports"][0]["port"]
    )


def test_secret_is_nowhere_but_in_the_secret() -> None:
    manifests = rendered(EVERYTHING)
    assert manifests.pop("Secret")["stringData"] == {"sasl-password": "a: b'\"$c"}
    assert "$c" not in yaml.safe_dump(manifests)
    # Not even a hash by which a guess could be confirmed.
    other = rendered(EVERYTHING | {"secret": {"data": {"sasl-password": "another"}}})
    del other["Secret"]
    assert other == manifests
    named = EVERYTHING | {"secret": {"existingName": "mine"}}
    assert "Secret" not in rendered(named)
    volumes = rendered(named)["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "secrets", "secret": {"secretName": "mine", "defaultMode": 0o440}} in volumes


def test_everything_selects_the_pods_and_the_monitor_the_service() -> None:
    manifests = rendered(EVERYTHING)
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    for kind, selector in (
        ("Deployment", manifests["Deployment"]["spec"]["selector"]["matchLabels"]),
        ("Service", manifests["Service"]["spec"]["selector"]),
        ("PodDisruptionBudget", manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]),
        ("NetworkPolicy", manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]),
    ):
        assert selector.items() <= labels, kind
    monitor = manifests["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= manifests["Service"]["metadata"]["labels"].items()
    assert manifests["Service"]["metadata"]["labels"][monitor["jobLabel"]] == "stream-fp"
    target = manifests["ScaledObject"]["spec"]["scaleTargetRef"]["name"]
    assert target == manifests["Deployment"]["metadata"]["name"]
    assert "replicas" not in manifests["Deployment"]["spec"]


def test_autoscaler_goes_by_a_metric_that_exists_and_is_not_the_committed_lag() -> None:
    (trigger,) = rendered(EVERYTHING)["ScaledObject"]["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    used = re.findall(r"stream_fp_\w+", query)
    assert used == ["stream_fp_position_lag_records"]
    assert set(used) <= {family.name for family in Metrics(list).registry.collect()}
    assert trigger["metadata"]["threshold"] == "20000"


def test_rules_and_dashboard_of_the_chart_are_those_of_the_project() -> None:
    manifests = rendered(EVERYTHING)
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules" / "stream-fp.yml").read_text())
    assert manifests["PrometheusRule"]["spec"] == rules
    dashboard = (DEPLOY / "grafana" / "dashboards" / "stream-fp.json").read_text()
    assert manifests["ConfigMap/dashboard"]["data"]["stream-fp.json"] == dashboard


def test_alerts_of_the_chart_link_to_the_documentation_where_it_is_served() -> None:
    served = EVERYTHING | {"prometheusRule": {"enabled": True, "docs": "https://docs.example/stream-fp"}}
    text = yaml.safe_dump(rendered(served)["PrometheusRule"])
    assert "https://docs.example/stream-fp/runbook.html#streamfpstalled" in text
    assert "docs/runbook.md" not in text


def test_chart_without_values_says_what_is_lacking_instead_of_being_malformed() -> None:
    ended = helm("lint", values={})
    assert "model.volume: expected the volume that holds the trained library" in ended.stdout + ended.stderr
    assert "YAML" not in ended.stdout + ended.stderr


def wrong_values() -> Iterator[tuple[dict[str, Any], str]]:
    yield {}, "model.volume: expected the volume that holds the trained library"
    yield LEAST | {"setings": {}}, "setings"
    yield LEAST | {"settings": {"enabled": False}}, "enabled"
    yield LEAST | {"settings": {"sasl_password": "x"}}, "sasl_password"
    yield LEAST | {"replicaCount": "two"}, "replicaCount"
    yield LEAST | {"autoscaling": {"positionLagTarget": 0}}, "positionLagTarget"
    yield (
        LEAST | {"autoscaling": {"enabled": True, "minReplicas": 9}},
        "autoscaling.minReplicas: expected at most maxReplicas, 6, got 9",
    )
    yield LEAST | {"secret": {"existingName": "mine", "data": {"a": "b"}}}, "secret: expected existingName or data"
    yield (
        {"model": LEAST["model"] | {"path": "/model/v1"}},
        "model.path: expected a folder below model.mountPath, /models, got /model/v1",
    )
    yield LEAST | {"prometheusRule": {"docs": "https://docs.example/"}}, "docs"


@pytest.mark.parametrize(("values", "words"), list(wrong_values()))
def test_wrong_values_stop_the_rendering(values: dict[str, Any], words: str) -> None:
    ended = helm("template", "here", values=values)
    assert ended.returncode != 0
    assert words in ended.stderr


def test_versions_are_one() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    from stream_fp import __version__  # noqa: PLC0415

    assert chart["appVersion"] == __version__


def test_values_of_the_documentation_render() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    (block,) = re.findall(r"```yaml\n# my-values.yaml\n(.*?)```", text, re.DOTALL)
    manifests = rendered(yaml.safe_load(block))
    assert {"ServiceMonitor", "PrometheusRule", "ScaledObject", "ConfigMap/dashboard"} <= manifests.keys()
    settings = load_settings({}, manifests["ConfigMap"]["data"])
    volumes = manifests["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "secrets", "secret": {"secretName": "stream-fp-kafka", "defaultMode": 0o440}} in volumes
    assert (
        Path(settings.sasl_password_file).parent == Path(settings.ssl_ca_file).parent == Path("/run/secrets/stream-fp")
    )


def test_settings_of_the_documentation_are_accepted(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "security.md").read_text(), re.DOTALL)
    (tmp_path / "stream-fp.toml").write_text(block)
    settings = load_settings({}, {}, tmp_path / "stream-fp.toml")
    assert (settings.security_protocol, settings.sasl_mechanism) == ("SASL_SSL", "SCRAM-SHA-512")


@pytest.mark.parametrize("name", ["x", "a" * 53, "stream-fp-" + "b" * 40])
def test_names_of_any_release_are_short_enough(name: str) -> None:
    ended = subprocess.run(
        [tool("helm"), "template", name, str(CHART), "--values", "-"],
        input=yaml.safe_dump(EVERYTHING), capture_output=True, text=True, check=True,
    )  # fmt: skip
    for manifest in yaml.safe_load_all(ended.stdout):
        assert len(manifest["metadata"]["name"]) <= (253 if manifest["kind"] == "ConfigMap" else 63)
        assert all(len(str(value)) <= 63 for value in manifest["metadata"]["labels"].values())
