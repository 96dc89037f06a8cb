"""What deploys the service: read by the tools and schemas that judge such files, and by the service's own settings."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
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
    named = EVERYTHING | {"secret": {"existingName": "mine"}}
    assert "Secret" not in rendered(named)
    volumes = rendered(named)["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "secrets", "secret": {"secretName": "mine", "defaultMode": 0o440}} in volumes


def test_secret_cannot_be_guessed_from_what_else_is_rendered() -> None:
    one, other = (rendered(LEAST | {"secret": {"data": {"sasl-password": text}}}) for text in ("one", "other"))
    assert one.pop("Secret") != other.pop("Secret")
    assert one == other


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


def test_alerts_of_the_chart_link_to_where_the_documentation_is_served() -> None:
    def links(values: dict[str, Any]) -> list[str]:
        groups = rendered(LEAST | {"prometheusRule": {"enabled": True} | values})["PrometheusRule"]["spec"]["groups"]
        return [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule]

    assert all(link.startswith("{{ with $externalLabels.stream_fp_docs }}") for link in links({}))
    fixed = links({"docs": "https://docs.example/stream-fp/"})
    assert len(fixed) == len(links({}))
    assert all(link.startswith('{{ with "https://docs.example/stream-fp" }}{{ . }}/runbook') for link in fixed)
    assert not any("$externalLabels" in link for link in fixed)


BOTH: Final = {"existingName": "mine", "data": {"sasl-password": "x"}}


def unusable_values() -> Iterator[tuple[dict[str, Any], str]]:
    """Yield what no schema says in words, and the line that does."""
    example = "such as persistentVolumeClaim: {claimName: models}"
    yield {}, f"model.volume: expected the volume that holds the trained library, {example}"
    yield LEAST | {"secret": BOTH}, "secret: expected either existingName or data, got both"
    for path in ("/models2/v1.0.2", "/models/../other"):
        yield (
            {"model": LEAST["model"] | {"path": path}},
            f"model.path: expected a folder below model.mountPath, /models, got {path}",
        )
    yield (
        LEAST | {"autoscaling": {"enabled": True, "minReplicas": 7}},
        "autoscaling: expected minReplicas of at most maxReplicas, got 7 and 6",
    )


@pytest.mark.parametrize(("values", "line"), list(unusable_values()), ids=lambda value: str(value)[:12])
def test_unusable_values_stop_rendering_and_lint_with_one_line(values: dict[str, Any], line: str) -> None:
    ended = helm("template", "here", values=values)
    assert ended.returncode != 0
    (error,) = [said for said in ended.stderr.splitlines() if said.startswith("Error: ")]
    assert error.endswith(f": {line}")
    ended = helm("lint", "--strict", values=values)
    assert ended.returncode != 0
    assert line in ended.stdout
    assert "unable to parse YAML" not in ended.stdout


@pytest.mark.parametrize("mount", ["/models", "/models/", "/models/v1.0.2"])
def test_library_may_lie_anywhere_below_its_mount(mount: str) -> None:
    model = LEAST["model"] | {"path": "/models/v1.0.2", "mountPath": mount}
    assert rendered({"model": model})["ConfigMap"]["data"]["STREAM_FP_MODEL_PATH"] == "/models/v1.0.2"


def wrong_values() -> Iterator[tuple[dict[str, Any], str]]:
    yield LEAST | {"settings": {"bootstrap_servers": "a:9092,b:9093"}}, "expected the port of b:9093"
    yield {"model": LEAST["model"] | {"path": "models/v1.0.2"}}, "model.path"
    yield LEAST | {"prometheusRule": {"docs": 'https://docs.example/"}}'}}, "docs"
    yield LEAST | {"setings": {}}, "setings"
    yield LEAST | {"settings": {"enabled": False}}, "enabled"
    yield LEAST | {"settings": {"sasl_password": "x"}}, "sasl_password"
    yield LEAST | {"replicaCount": "two"}, "replicaCount"
    yield LEAST | {"autoscaling": {"positionLagTarget": 0}}, "positionLagTarget"


@pytest.mark.parametrize(("values", "words"), list(wrong_values()))
def test_wrong_values_stop_the_rendering(values: dict[str, Any], words: str) -> None:
    ended = helm("template", "here", values=values)
    assert ended.returncode != 0
    assert words in ended.stderr


def test_versions_are_one() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    from stream_fp import __version__  # noqa: PLC0415

    assert chart["appVersion"] == __version__


def documented(name: str) -> str:
    """Return the file that docs/deployment.md shows under a name."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    (block,) = re.findall(rf"```\w+\n# {re.escape(name)}\n(.*?)```", text, re.DOTALL)
    return str(block)


def unit(name: str) -> configparser.ConfigParser:
    """Read a unit of systemd, names as they are written."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(documented(name))
    return parser


def commands() -> list[list[str]]:
    """Return the commands of docs/deployment.md, split into words."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    lines = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    return [shlex.split(command) for line in lines for command in line.split("&&")]


UNIT: Final = "/etc/systemd/system/stream-fp.service"


def test_machine_of_the_documentation_has_all_that_its_unit_names() -> None:
    service = unit(UNIT)["Service"]
    (user,) = [command[-1] for command in commands() if command[0] == "useradd"]
    assert service["User"] == user
    (environment,) = [command[-1] for command in commands() if command[1:3] == ["-m", "venv"]]
    program, *arguments = service["ExecStart"].split()
    assert program == f"{environment}/bin/stream-fp"
    assert arguments == ["run", "--config", "/etc/stream-fp/stream-fp.toml"]
    (checked,) = [command for command in commands() if command[0] == "systemd-run"]
    assert checked[-4:] == [program, "check", *arguments[1:]]
    for name in ("User", "StateDirectory", "WorkingDirectory"):
        assert f"{name}={service[name]}" in checked
    (folders,) = [command for command in commands() if command[:2] == ["install", "-d"]]
    copied = {command[-1]: command[:-1] for command in commands() if command[:2] == ["install", "-m"]}
    assert copied.keys() <= set(folders)
    assert copied["/etc/stream-fp"][-1] == "deploy/stream-fp.toml"
    assert all(["-g", user] == command[3:5] for command in copied.values()), "the service can read what root owns"

    example = DEPLOY / "stream-fp.toml"
    changed = tomllib.loads(documented("/etc/stream-fp/stream-fp.toml"))
    assert changed.keys() <= tomllib.loads(example.read_text()).keys()
    assert changed["model_path"] in copied
    settings = load_settings(changed, {}, example)
    assert settings.enabled
    assert not Path(settings.sidecar_dir).is_absolute(), "it lies below the unit's working directory"
    assert float(service["TimeoutStopSec"]) > settings.shutdown_grace_s


def test_unit_of_the_documentation_starts_again_but_for_a_wrong_setting() -> None:
    service = unit(UNIT)["Service"]
    assert service["Restart"] == "on-failure"
    ended = subprocess.run(
        [sys.executable, "-m", "stream_fp", "run", "--http-port", "much"], capture_output=True, check=False
    )
    assert service["RestartPreventExitStatus"] == str(ended.returncode)
    assert unit(UNIT)["Unit"]["StartLimitIntervalSec"] == "0"


def test_unit_of_the_documentation_loads_a_password_only_where_there_is_one() -> None:
    assert "LoadCredential" not in unit(UNIT)["Service"]
    added = unit(f"{UNIT}.d/password.conf")["Service"]
    credential = added["LoadCredential"].split(":")[0]
    variable, _, path = added["Environment"].partition("=")
    assert path == f"%d/{credential}"
    assert load_settings({}, {variable: path}).sasl_password_file == path


def test_alerts_of_the_documentation_reach_somebody() -> None:
    rules = (DEPLOY / "prometheus" / "rules" / "stream-fp.yml").read_text()
    prometheus = yaml.safe_load(documented("prometheus.yml"))
    (label,) = prometheus["global"]["external_labels"]
    assert f"$externalLabels.{label}" in rules
    assert [Path(path).name for path in prometheus["rule_files"]] == ["stream-fp.yml"]
    assert prometheus["alerting"]["alertmanagers"]
    assert [job["job_name"] for job in prometheus["scrape_configs"]] == ["stream-fp"]

    alertmanager = yaml.safe_load(documented("alertmanager.yml"))
    routes = alertmanager["route"]["routes"]
    severities = {
        rule["labels"]["severity"]
        for group in yaml.safe_load(rules)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert {matcher for route in routes for matcher in route["matchers"]} == {f'severity = "{it}"' for it in severities}
    assert {route["receiver"] for route in [alertmanager["route"], *routes]} == {
        receiver["name"] for receiver in alertmanager["receivers"]
    }


def test_documentation_and_examples_speak_of_one_library_and_of_its_successor() -> None:
    paths = (ROOT / "docs" / "deployment.md", CHART / "values.yaml", DEPLOY / "stream-fp.toml")
    versions = [set(re.findall(r"\bv\d+\.\d+\.\d+", path.read_text())) for path in paths]
    assert versions == [{"v1.0.2", "v1.0.3"}, {"v1.0.2"}, {"v1.0.2"}]


def test_values_of_the_documentation_render() -> None:
    manifests = rendered(yaml.safe_load(documented("my-values.yaml")))
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
