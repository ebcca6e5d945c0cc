"""Which functions can cause their own next invocation, through queues, buckets, streams, events and other functions."""

from collections import defaultdict
from collections.abc import Iterator

from tests.template.rules import (
    DEFAULT_BUS,
    Resource,
    as_list,
    find_target,
    list_choices,
    list_consumers,
    list_dead_letter_queues,
    list_resources,
    list_statements,
    list_streams,
    map_grants,
)
from tests.template.transformed import Template

type Graph = dict[str, set[str]]

_SENDING = {
    "AWS::SQS::Queue": {"sqs:SendMessage"},
    "AWS::SNS::Topic": {"sns:Publish"},
    "AWS::S3::Bucket": {"s3:PutObject"},
    "AWS::DynamoDB::Table": {
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "dynamodb:DeleteItem",
        "dynamodb:BatchWriteItem",
    },
    "AWS::Lambda::Function": {"lambda:InvokeFunction", "lambda:InvokeAsync"},
}
"""Actions that can invoke a function, by type of the resource."""


def map_invocations(template: Template) -> Graph:
    """Return what each function and resource can invoke or send to. Filters of streams are ignored."""
    graph: Graph = defaultdict(set)
    for function, properties in list_resources(template, "AWS::Lambda::Function"):
        graph[function] |= set(_list_recipients(template, find_target(properties["Role"]) or ""))
    for function, source, _ in [*list_consumers(template), *list_streams(template)]:
        graph[source].add(function)
    for queue, dead_letter_queue in list_dead_letter_queues(template).items():
        graph[queue].add(dead_letter_queue)
    for _, subscription in list_resources(template, "AWS::SNS::Subscription"):
        graph[find_target(subscription["TopicArn"]) or ""].add(find_target(subscription["Endpoint"]) or "")
    for rule, properties in list_resources(template, "AWS::Events::Rule"):
        graph[rule] |= {find_target(target["Arn"]) or "" for target in properties["Targets"]}
        # A rule without a pattern is a schedule.
        if pattern := properties.get("EventPattern"):
            # Only AWS can send events of sources that start with "aws.".
            if any(not str(source).startswith("aws.") for source in pattern.get("source", [""])):
                graph[DEFAULT_BUS].add(rule)
            for bucket in pattern.get("detail", {}).get("bucket", {}).get("name", []):
                graph[find_target(bucket) or ""].add(rule)
    return graph


def _list_recipients(template: Template, role: str) -> Iterator[str]:
    """Yield the resources that a role may send to, if that can invoke a function."""
    for (place, prefix), actions in map_grants(list_statements(template, role)).items():
        if place == DEFAULT_BUS and "events:PutEvents" in actions:
            yield place
        resource = template["Resources"].get(place)
        if resource is None or not actions & _SENDING.get(resource["Type"], set()):
            continue
        if not (prefix and prefix in _list_silent_prefixes(template, place)):
            yield place


def _list_silent_prefixes(template: Template, bucket: str) -> set[str]:
    """Return the key prefixes, as `prefix/*`, whose events no rule matches."""
    silent: list[set[str]] = []
    for _, rule in list_resources(template, "AWS::Events::Rule"):
        detail: Resource = rule.get("EventPattern", {}).get("detail", {})
        if bucket in map(find_target, detail.get("bucket", {}).get("name", [])):
            excluded = [key.get("anything-but", {}).get("prefix", []) for key in detail["object"]["key"]]
            silent.append({f"{prefix}*" for prefixes in excluded for prefix in as_list(prefixes)})
    return set.intersection(*silent) if silent else set()


def find_loops(template: Template) -> set[str]:
    """Return the functions from which a path leads back to them."""
    graph = map_invocations(template)
    functions = {name for name, _ in list_resources(template, "AWS::Lambda::Function")}
    return {function for function in functions if function in _reach(graph, function)}


def _reach(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    left = [start]
    while left:
        following = graph.get(left.pop(), set()) - found
        found |= following
        left += following
    return found


def check_loops(template: Template) -> list[str]:
    """Lambda drops events of a loop after about 16 rounds, which a wait for a rate limit exceeds.

    https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
    """
    loops = find_loops(template)
    faults = []
    for name, properties in list_resources(template, "AWS::Lambda::Function"):
        values = list_choices(properties.get("RecursiveLoop", "Terminate"))
        if values != ["Allow" if name in loops else "Terminate"]:
            faults.append(f"{name}: RecursiveLoop is {values}, but it is {'' if name in loops else 'not '}in a loop")
    return faults
