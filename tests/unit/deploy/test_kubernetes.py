"""The manifests in deploy/kubernetes: valid, of one mind with the code, and without a right or a pause too many."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.server import ROOT
from tests.unit.deploy.kustomize import render, render_with_kubectl, render_without_kubectl
from wine_api.app import create_app
from wine_api.config import Settings, settings_reference

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted((FOLDER / "overlays").iterdir())
COMPONENTS = sorted(path for path in (FOLDER / "components").iterdir())
NEWEST_VERSIONS = sorted(kubernetes_validate.utils.all_versions(), key=lambda version: [*map(int, version.split("."))])


def with_component(component: Path, place: Path) -> Path:
    """Return an overlay in *place* that is the base with *component*."""
    shutil.copytree(FOLDER, place / "kubernetes")
    overlay = place / "kubernetes" / "overlays" / "tried"
    overlay.mkdir()
    rules = {"resources": ["../../base"], "components": [f"../../components/{component.name}"]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(rules))
    return overlay


@pytest.fixture(params=[*OVERLAYS, *COMPONENTS], ids=lambda path: f"{path.parent.name}/{path.name}")
def manifests(request, tmp_path):
    """The objects of each overlay, and of the base with each component."""
    if request.param in OVERLAYS:
        return render(request.param)
    return render(with_component(request.param, tmp_path))


@pytest.fixture
def deployment(manifests):
    return the(manifests, "Deployment")


@pytest.fixture
def pod(deployment):
    return deployment["spec"]["template"]["spec"]


@pytest.fixture
def container(pod):
    (container,) = pod["containers"]
    return container


@pytest.fixture
def variables(manifests):
    return the(manifests, "ConfigMap")["data"]


@pytest.fixture(scope="module")
def routes():
    return {rule.rule for rule in create_app().url_map.iter_rules()}


def the(manifests, kind):
    (found,) = [each for each in manifests if each["kind"] == kind]
    return found


def ours(manifests):
    """Those that Kubernetes itself knows: the others are of the operators that brought them."""
    return [each for each in manifests if not each["apiVersion"].startswith("monitoring.coreos.com/")]


# Rendered


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_renders_alike_with_and_without_kubectl(overlay):
    render_here = render_with_kubectl if shutil.which("kubectl") else render_without_kubectl

    assert in_order(render_here(overlay)) == in_order(render_without_kubectl(overlay))


def in_order(manifests):
    return sorted(manifests, key=lambda each: (each["kind"], each["metadata"]["name"]))


@pytest.mark.parametrize("version", NEWEST_VERSIONS[-3:])
def test_every_object_is_valid_for_the_newest_versions(manifests, version):
    for manifest in ours(manifests):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_has_everything_that_a_service_needs(manifests):
    kinds = {each["kind"] for each in manifests}

    assert kinds >= {
        "Deployment",
        "Service",
        "Ingress",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceAccount",
        "ConfigMap",
    }


def test_what_belongs_together_finds_each_other(manifests, deployment, container, pod):
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    volumes = {volume["name"] for volume in pod["volumes"]}

    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert the(manifests, "Service")["spec"]["selector"].items() <= labels
    assert the(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels
    assert the(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels
    assert the(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert the(manifests, "ServiceAccount")["metadata"]["name"] == pod["serviceAccountName"]
    assert the(manifests, "ConfigMap")["metadata"]["name"] == container["envFrom"][0]["configMapRef"]["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    for ingress in (each for each in manifests if each["kind"] == "Ingress"):
        (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
        service = the(manifests, "Service")
        assert path["backend"]["service"]["name"] == service["metadata"]["name"]
        assert path["backend"]["service"]["port"]["name"] == service["spec"]["ports"][0]["name"]


# What the code knows


def test_every_variable_is_a_setting_with_a_value_that_the_service_takes(variables):
    known = set(re.findall(r"^\| `([A-Z0-9_]+)`", settings_reference(), re.MULTILINE))

    assert set(variables) <= known
    Settings.from_environ(variables)


def test_ports_are_those_of_the_service(manifests, container, variables):
    (port,) = container["ports"]

    assert port["containerPort"] == Settings.from_environ(variables).port
    assert the(manifests, "Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    assert the(manifests, "NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"] == port["name"]
    assert Settings.from_environ(variables).host == "0.0.0.0"


@pytest.mark.parametrize(
    ("probe", "path"),
    [
        ("startupProbe", "/health/live"),
        ("livenessProbe", "/health/live"),
        ("readinessProbe", "/health/ready"),
    ],
)
def test_probes_ask_what_is_there(container, routes, probe, path):
    assert container[probe]["httpGet"] == {"path": path, "port": "http"}
    assert path in routes


def test_a_start_may_take_as_long_as_the_service_tries(container, variables):
    probe = container["startupProbe"]

    allowed = probe["periodSeconds"] * probe["failureThreshold"]

    assert allowed >= Settings.from_environ(variables).model_load_timeout + 30


def test_what_is_written_lies_in_a_volume_within_its_folder(container, variables):
    settings = Settings.from_environ(variables)
    mounted = {Path(mount["mountPath"]) for mount in container["volumeMounts"] if not mount.get("readOnly")}

    assert settings.state_dir.parent in mounted
    assert settings.model_cache_dir.parent in mounted
    assert Path("/tmp") in mounted


def test_the_ingress_lets_through_what_the_service_takes_and_waits_as_long(manifests, variables, routes):
    annotations = annotations_of(manifests, "wine-api")
    settings = Settings.from_environ(variables)

    assert int(annotations["proxy-body-size"].removesuffix("m")) * 1024 * 1024 > settings.max_body_bytes
    assert int(annotations["proxy-read-timeout"]) > settings.model_load_timeout
    assert annotations["proxy-request-buffering"] == annotations["proxy-buffering"] == "on"
    assert annotations["x-forwarded-prefix"] == "/wine"
    assert settings.trusted_proxies


def test_the_ingress_keeps_the_metrics_inside(manifests, routes):
    ingress = next(each for each in manifests if each["metadata"]["name"] == "wine-api-metrics")
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]

    assert annotations_of(manifests, "wine-api-metrics")["denylist-source-range"] == "0.0.0.0/0,::/0"
    assert re.fullmatch(path["path"], "/wine/metrics")
    assert "/metrics" in routes


def annotations_of(manifests, name):
    ingress = next(each for each in manifests if each["kind"] == "Ingress" and each["metadata"]["name"] == name)
    return {key.rpartition("/")[2]: value for key, value in ingress["metadata"]["annotations"].items()}


# No request is lost


def test_a_new_pod_is_ready_before_an_old_one_goes(deployment):
    assert deployment["spec"]["strategy"]["type"] == "RollingUpdate"
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_an_old_pod_answers_until_nobody_sends_it_requests(container):
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] >= 5


def test_the_grace_period_is_longer_than_everything_that_happens_in_it(pod, container, variables):
    graceful = int(re.search(r"^graceful_timeout = (\d+)", (ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)[1])
    delay = container["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert pod["terminationGracePeriodSeconds"] > delay + Settings.from_environ(variables).drain_seconds + graceful


def test_the_autoscaler_alone_decides_how_many_there_are(manifests, deployment):
    autoscaler = the(manifests, "HorizontalPodAutoscaler")["spec"]

    assert "replicas" not in deployment["spec"]
    assert 1 <= autoscaler["minReplicas"] < autoscaler["maxReplicas"]


def test_in_production_one_pod_may_always_be_missing():
    manifests = render(FOLDER / "overlays" / "production")

    assert the(manifests, "HorizontalPodAutoscaler")["spec"]["minReplicas"] >= 2
    assert the(manifests, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


# No right too many


def test_images_have_a_tag_of_their_own(container):
    _, colon, tag = container["image"].rpartition(":")

    assert colon
    assert tag != "latest"


def test_runs_as_the_user_of_the_image_with_no_right_that_it_does_not_need(pod, container):
    uid = int(re.search(r"^USER (\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1])

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["runAsGroup"] == uid
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_everything_that_can_be_used_up_has_a_limit(pod, container):
    limits = {"cpu", "memory", "ephemeral-storage"}

    assert set(container["resources"]["limits"]) == set(container["resources"]["requests"]) == limits
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume)


def test_the_role_comes_without_a_token_for_the_api_server():
    account = the(render(FOLDER / "overlays" / "production"), "ServiceAccount")

    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].startswith("arn:aws:iam::")
    assert account["automountServiceAccountToken"] is False


def test_only_expected_places_can_be_reached(manifests):
    policy = the(manifests, "NetworkPolicy")["spec"]

    ports = [[port["port"] for port in rule["ports"]] for rule in policy["egress"]]

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert ports == [[53, 53], [443], [6379]]


def test_nothing_can_be_served_before_the_placeholders_of_production_are_replaced():
    variables = the(render(FOLDER / "overlays" / "production"), "ConfigMap")["data"]

    assert not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", variables["S3_BUCKET_NAME"])


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_namespaces_are_held_to_the_restricted_standard(overlay):
    namespace = the(render(overlay), "Namespace")

    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
