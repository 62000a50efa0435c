"""Every block of commands in README.md and docs/: run as it stands on a deployed stack, or listed with the reason why not."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"```(?:sh|console)\n(.*?)```", re.S)

# By their first line. What is in capitals in a block is put in from the stack.
RUN = {
    "aws events put-rule --name deploy-my-app --event-pattern '{",
    "aws sns subscribe --topic-arn TOPIC --protocol email --notification-endpoint ops@example.com \\",
    "aws ecr tag-resource --resource-arn REPOSITORY_ARN --tags Key=gantry:stack,Value=STACK",
    "aws ecr set-repository-policy --repository-name REPOSITORY --policy-text",
    'echo "accepted by ann, TICKET-7" | aws s3 cp - s3://STATE/releases/team/my-app/',
    "aws s3 cp my-app.tar s3://UPLOADS/team/my-app/1.4.2.tar",
}

ELSEWHERE = {
    "aws sqs start-message-move-task --source-arn FAILED_QUEUE_ARN": "ministack has no such call",
    "cargo run --release -- demo": "CI runs both lines by themselves, cold",
    "docker save my-app:1.4.2 -o my-app.tar": "tests/commands runs each subcommand, on tarballs of its own",
    "sam build": "local.py runs what it made; deploying with it takes an account, and deploy.py does what it does",
    'UPLOADS=$(aws cloudformation describe-stacks --stack-name "$STACK" --output text \\': "deploy.py runs it last",
    'for bucket in "$UPLOADS" "$STATE"; do': "deploy.py runs it last",
    "aws lambda update-function-code --function-name FUNCTION": "takes a function and a cluster of somebody's",
    "gantry policy check policy.toml": "deploy.py puts a policy as its second line does; tests/docs runs the first",
    "gantry policy check docs/policy.example.toml": "tests/docs runs it",
    "gantry policy explain team/my-app:1.4.2": "tests/commands runs it",
    "gantry status --uploads UPLOADS --state STATE": "tests/commands runs status and retry, on a stack of its own",
}


def blocks():
    """Page and text of each, without the prompts of a console."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in FENCE.findall(page.read_text()):
            yield page.name, re.sub(r"(?m)^\$ ", "", block)


def run(aws, names):
    """Runs what can be run; how many blocks that were."""
    known, count = RUN | ELSEWHERE.keys(), 0
    used = set()
    for page, block in blocks():
        begin = [first for first in known if block.startswith(first)]
        if len(begin) != 1:
            raise SystemExit(f"{page}: neither run nor listed in pages.py:\n{block}")
        used |= set(begin)
        if begin[0] in RUN:
            # Whole words only: STATE is in no other name then.
            text = re.sub(r"\b[A-Z][A-Z_]+\b", lambda word: names.get(word[0], word[0]), block)
            text = text.replace("docs/gantry-wait", str(ROOT / "docs" / "gantry-wait"))
            aws.run(text)
            count += 1
    if used != known:
        raise SystemExit(f"pages.py lists what no page has: {known - used}")
    return count
