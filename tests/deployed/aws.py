"""Starts ministack with what it lacks of ECR: findings of scans, and the scanning configuration of the registry.

Some things are put right that IAM would stumble over: requests count as encrypted, which they are not on the loopback;
the calls of ECR that name their repository in another way than most are about that repository; and conditions see the
resource tags of repositories and the sources of events.

Run as a program; its settings are ministack's own environment variables. What `FINDINGS_FILE` holds, JSON of severities
by repository, is what scans find; a repository that is not in it has nothing against it.
"""

import json
import os

from ministack.core import iam_actions
from ministack.services import ecr, tagging
from ministack.core.responses import get_account_id, json_response


def findings_of(repository):
    path = os.environ.get("FINDINGS_FILE", "")
    severities = []
    if path and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            severities = json.load(file).get(repository, [])
    return [
        {"name": f"CVE-2026-{number:04}", "severity": severity, "attributes": [{"key": "package_name", "value": "openssl"}]}
        for number, severity in enumerate(severities, 1)
    ]


def scan_findings(request):
    name, image = request["repositoryName"], request["imageId"]
    found = ecr._find_image(name, image)
    if not found:
        return ecr.error_response_json("ImageNotFoundException", "there is no such image", 400)
    return json_response({
        "registryId": get_account_id(),
        "repositoryName": name,
        "imageId": {"imageDigest": found["imageDigest"]},
        "imageScanStatus": {"status": "COMPLETE"},
        "imageScanFindings": {"findings": findings_of(name), "imageScanCompletedAt": 1767225600},
    })


def scanning_configuration(_request):
    return json_response({"registryId": get_account_id(), "scanningConfiguration": {"scanType": "BASIC", "rules": []}})


MISSING = {
    "DescribeImageScanFindings": scan_findings,
    "GetRegistryScanningConfiguration": scanning_configuration,
}

ministacks_own = ecr.handle_request
resource_of = iam_actions.extract_resource_arn
tags_of = iam_actions.request_tag_context


def resource_arn(service, method, path, headers, body, query, region, account, *more, **named):
    if service == "ecr" and body:
        request = json.loads(body)
        if request.get("resourceArn"):
            return request["resourceArn"]
        if len(request.get("repositoryNames", [])) == 1:
            return f"arn:aws:ecr:{region}:{account}:repository/{request['repositoryNames'][0]}"
    return resource_of(service, method, path, headers, body, query, region, account, *more, **named)


async def handle_request(method, path, headers, body, query):
    operation = headers.get("x-amz-target", "").rpartition(".")[2]
    if operation in MISSING:
        return MISSING[operation](json.loads(body or b"{}"))
    return await ministacks_own(method, path, headers, body, query)


def context_of(service, action, body, parameters):
    context = tags_of(service, action, body, parameters)
    if action == "events:PutEvents":
        sources = {entry.get("Source", "") for entry in json.loads(body)["Entries"]}
        context["events:source"] = sources.pop() if len(sources) == 1 else sorted(sources)
    return context


if __name__ == "__main__":
    ecr.handle_request = handle_request
    iam_actions.extract_resource_arn = resource_arn
    iam_actions.request_tag_context = context_of
    tagging._RESOURCE_TAG_COLLECTORS.setdefault("ecr", tagging._collect_ecr)
    from ministack import app

    # There is no TLS on the loopback, and the buckets refuse plain HTTP: as if a proxy had taken it off.
    own_origin = app.pin_request_origin
    app.pin_request_origin = lambda address, _secure: own_origin(address, True)
    app.main()
