"""Prints what SAM makes of the template, as plain CloudFormation: `expand.py template.yaml > expanded.json`."""

import json
import os
import sys

from cfnlint.decode import cfn_yaml
from samtranslator.translator.transform import transform


class NoManagedPolicies:
    """SAM's shorthands for AWS's own policies; the template uses none."""

    def load(self):
        return {}


os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")
# Through JSON, to be rid of the linter's own kinds of nodes.
document = json.loads(json.dumps(cfn_yaml.load(sys.argv[1])))
for resource in document["Resources"].values():
    if resource["Type"] == "AWS::Serverless::Function":
        resource["Properties"]["CodeUri"] = "s3://code/function.zip"
json.dump(transform(document, {}, NoManagedPolicies()), sys.stdout, indent=1)
