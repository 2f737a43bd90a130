"""The CloudFormation templates in deploy/ecs: valid, of one mind with the code, and without a right too many."""

from __future__ import annotations

import json
import re

import boto3
import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import validate_parameters
from cfnlint.decode import cfn_yaml
from moto import mock_aws

from tests.server import ROOT
from tests.unit.deploy.tools import complaints
from wine_api.app import create_app
from wine_api.config import Settings, settings_reference

FOLDER = ROOT / "deploy" / "ecs"
TEMPLATES = sorted(FOLDER.glob("*.yaml"))
REGION = "eu-central-1"
IMAGE = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/wine-api@sha256:{'0' * 64}"
PARAMETERS = {
    "Image": IMAGE,
    "ModelBucket": "wine-models",
    "ClusterName": "wine",
    "VpcCidr": "10.0.0.0/16",
    "HostName": "wine.example.com",
}
UNKNOWN_TO_MOTO = "AWS::ApplicationAutoScaling::"
DENIED_ACTIONS = re.compile(r".*\*.*|s3:Delete.*|iam:.*")


@pytest.fixture(scope="module")
def routes():
    return {rule.rule for rule in create_app().url_map.iter_rules()}


@pytest.fixture
def aws(monkeypatch):
    """An AWS account in this process, with what the stack expects to be there."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield boto3


@pytest.fixture
def stack(aws):
    """The names of what the service's template has made, by the template's names."""
    ec2, elb = aws.client("ec2"), aws.client("elbv2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"]
        for number, zone in enumerate("ab")
    ]
    subnet_ids = [subnet["SubnetId"] for subnet in subnets]
    group = ec2.create_security_group(GroupName="lb", Description="lb", VpcId=vpc)["GroupId"]
    balancer = elb.create_load_balancer(Name="lb", Subnets=subnet_ids, SecurityGroups=[group])["LoadBalancers"][0]
    listener = elb.create_listener(
        LoadBalancerArn=balancer["LoadBalancerArn"],
        Protocol="HTTP",
        Port=80,
        DefaultActions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}],
    )["Listeners"][0]["ListenerArn"]
    aws.client("ecs").create_cluster(clusterName="wine")
    parameters = PARAMETERS | {
        "VpcId": vpc,
        "SubnetIds": ",".join(subnet_ids),
        "ListenerArn": listener,
        "LoadBalancerSecurityGroupId": group,
    }
    cloudformation = aws.client("cloudformation")
    cloudformation.create_stack(
        StackName="wine",
        TemplateBody=json.dumps(known_to_moto(template("service.yaml"))),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    resources = cloudformation.describe_stack_resources(StackName="wine")["StackResources"]
    return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}


@pytest.fixture
def task(aws):
    """The task definition, registered by the API itself: moto's CloudFormation leaves some of it out."""
    return aws.client("ecs").register_task_definition(**as_api(the_task_definition()))["taskDefinition"]


@pytest.fixture
def container(task):
    (container,) = task["containerDefinitions"]
    return container


def known_to_moto(stack):
    resources = {
        name: each for name, each in stack["Resources"].items() if not each["Type"].startswith(UNKNOWN_TO_MOTO)
    }
    return stack | {"Resources": resources}


def template(name):
    return json.loads(json.dumps(cfn_yaml.load(str(FOLDER / name))))


def resources_of(path, kind):
    return {name: each for name, each in template(path.name)["Resources"].items() if each["Type"] == kind}


def statements(path):
    for role in resources_of(path, "AWS::IAM::Role").values():
        for policy in role["Properties"]["Policies"]:
            yield from policy["PolicyDocument"]["Statement"]


# Valid


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_the_linter_of_cloudformation_finds_nothing(path):
    assert complaints("cfn-lint", path) == ""


def test_the_task_definition_is_one_that_the_api_takes():
    model = ServiceModel(Loader().load_service_model("ecs", "service-2"))

    # Raises for an unknown name and for a wrong type.
    validate_parameters(as_api(the_task_definition()), model.operation_model("RegisterTaskDefinition").input_shape)


def the_task_definition():
    return template("service.yaml")["Resources"]["TaskDefinition"]["Properties"]


def as_api(value, name=""):
    """Write *value* of a template as the API has it: names begin with a small letter, references are filled in."""
    if isinstance(value, list):
        return [as_api(each) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)).startswith(("Ref", "Fn::")):
        return PARAMETERS.get(value.get("Ref"), "")
    if name == "Options":  # a map whose keys are the log driver's
        return {key: as_api(each) for key, each in value.items()}
    return {key[0].lower() + key[1:]: as_api(each, key) for key, each in value.items()}


def test_the_whole_stack_can_be_made(stack):
    assert set(stack) == set(known_to_moto(template("service.yaml"))["Resources"])


# Of one mind with the code


def test_every_variable_is_a_setting_with_a_value_that_the_service_takes(container):
    variables = {pair["name"]: pair["value"] for pair in container["environment"]}
    known = set(re.findall(r"^\| `([A-Z0-9_]+)`", settings_reference(), re.MULTILINE))

    assert set(variables) <= known
    settings = Settings.from_environ(variables)
    assert settings.s3_bucket_name == PARAMETERS["ModelBucket"]
    assert settings.port == container["portMappings"][0]["containerPort"]
    assert settings.host == "0.0.0.0"


def test_the_task_may_stop_in_its_own_time(container):
    graceful = int(re.search(r"^graceful_timeout = (\d+)", (ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)[1])
    variables = {pair["name"]: pair["value"] for pair in container["environment"]}

    assert graceful + Settings.from_environ(variables).drain_seconds < container["stopTimeout"] <= 120


def test_health_checks_ask_what_is_there(aws, stack, container, routes):
    group = aws.client("elbv2").describe_target_groups(TargetGroupArns=[stack["TargetGroup"]])["TargetGroups"][0]

    assert group["HealthCheckPath"] == "/health/ready"
    assert container["healthCheck"]["command"][1:] == ["python", "-m", "wine_api.healthcheck", "/health/live"]
    assert {group["HealthCheckPath"], container["healthCheck"]["command"][-1]} <= routes


def test_requests_go_to_the_container_and_metrics_to_nobody(aws, stack, container):
    (balancer,) = template("service.yaml")["Resources"]["Service"]["Properties"]["LoadBalancers"]
    metrics, everything = (
        aws.client("elbv2").describe_rules(RuleArns=[stack[name]])["Rules"][0] for name in ("MetricsRule", "Rule")
    )

    assert balancer["ContainerName"] == container["name"]
    assert balancer["ContainerPort"] == container["portMappings"][0]["containerPort"]
    assert balancer["TargetGroupArn"] == {"Ref": "TargetGroup"}
    assert everything["Actions"][0]["TargetGroupArn"] == stack["TargetGroup"]
    assert int(metrics["Priority"]) < int(everything["Priority"])
    assert metrics["Actions"][0]["Type"] == "fixed-response"


# No right too many


def test_runs_as_the_user_of_the_image_with_no_right_that_it_does_not_need(task, container):
    assert container["user"] == re.search(r"^USER (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]
    assert container["readonlyRootFilesystem"] is True
    assert container["linuxParameters"]["capabilities"]["drop"] == ["ALL"]
    assert task["networkMode"] == "awsvpc"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_action_and_resource_says_why(path):
    lines = path.read_text().splitlines()
    actions = [line for line in lines if re.search(r"\b(ecr|s3|logs|eks):[A-Z]", line)]
    resources = [number for number, line in enumerate(lines) if re.match(r" {16}Resource:", line)]

    assert actions
    assert [line for line in actions if "#" not in line] == []
    assert [lines[number] for number in resources if "#" not in lines[number] + lines[number - 1]] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_right_is_given_wholesale(path):
    for statement in statements(path):
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]

        assert not [action for action in actions if DENIED_ACTIONS.fullmatch(action)]
        assert statement["Resource"] != "*" or actions == ["ecr:GetAuthorizationToken"]


def test_the_service_may_read_models_and_nothing_else():
    (role,) = [
        role for name, role in resources_of(FOLDER / "service.yaml", "AWS::IAM::Role").items() if name == "TaskRole"
    ]
    (policy,) = role["Properties"]["Policies"]
    objects, bucket = policy["PolicyDocument"]["Statement"]

    assert objects["Action"] == ["s3:GetObject", "s3:GetObjectVersion"]
    assert objects["Resource"]["Fn::Sub"].endswith(":s3:::${ModelBucket}/models/*")
    assert bucket["Action"] == "s3:ListBucket"
    assert bucket["Resource"]["Fn::Sub"].endswith(":s3:::${ModelBucket}")


def test_each_workflow_has_its_own_role_for_one_environment_of_one_repository():
    roles = resources_of(FOLDER / "pipeline.yaml", "AWS::IAM::Role")

    subjects = {
        name: role["Properties"]["AssumeRolePolicyDocument"]["Statement"][0]["Condition"]["StringEquals"][
            "token.actions.githubusercontent.com:sub"
        ]["Fn::Sub"].rpartition(":")[2]
        for name, role in roles.items()
    }

    assert subjects == {"PushRole": "registry", "DeployRole": "production", "PublishRole": "models"}
