#!/bin/bash
# Makes a fresh machine an attempt of a run: learns who it is from its own metadata, fetches the
# agent, checks it, and runs it. Any failure on the way is reported, and ends the machine.
#
# The text is the same for every machine of a stack and holds no secret. Only Python speaks HTTP
# here: it is needed anyway, while curl may be missing, and an older one (7.81, say) does not sign
# the session token, which S3 then refuses. Credentials stay inside the process that reads them.
set -euo pipefail
umask 077

agent_bucket=@AGENT_BUCKET@
agent_key=@AGENT_KEY@
agent_sha256=@AGENT_SHA256@
table=@TABLE@
bucket=@BUCKET@
bus=@BUS@
home_region=@HOME_REGION@
stack=@STACK@
python=@PYTHON@
time_scale=@TIME_SCALE@

asked_to_stop=
step="making a folder to work in"
work=
speaker=
run=
generation=

say() {
  printf 'spotrelay: %s\n' "$*" >&2
  if [[ -n $work ]]; then printf 'spotrelay: %s\n' "$*" >>"$work/boot.log" || true; fi
}

is_run_id() {
  local LC_ALL=C
  [[ $1 =~ ^[a-z0-9][a-z0-9-]{0,39}$ ]]
}

# Runs at every way out. Status 0 means that the agent did its own ending.
# shellcheck disable=SC2329  # the trap below calls it
finish() {
  local status=$?
  trap - EXIT
  if [[ $status -eq 0 || -n $asked_to_stop ]]; then exit "$status"; fi
  trap '' TERM
  say "bootstrap failed (status $status) while $step; this machine ends now"
  if [[ -n $run && -n $generation && -n $speaker ]]; then
    timeout 120 "$speaker" -I "$work/speak.py" report "$home_region" "$table" "$bucket" "$run" "$generation" \
      "$status" "$work/boot.log" || say "the failure could not be reported to S3 and DynamoDB"
  fi
  shutdown -h now || say "shutdown did not work; end this machine by hand"
  exit "$status"
}

trap finish EXIT
trap 'asked_to_stop=yes; exit 143' TERM

# The machine's role speaks for it, and nothing that an image left in the environment.
unset AWS_PROFILE AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_EC2_METADATA_DISABLED

work=$(mktemp -d "${TMPDIR:-/var/tmp}/spotrelay.XXXXXXXXXX")
export SPOTRELAY_TIME_SCALE=$time_scale

cat >"$work/speak.py" <<'PYTHON'
"""Metadata service, S3 and DynamoDB with the standard library of any Python from 3.6 on."""
import hashlib, hmac, http.client, io, json, os, random, re, sys, time, zipfile
from urllib import error, parse, request

METADATA = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
DIRECT = request.build_opener(request.ProxyHandler({}))  # the metadata service is never behind a proxy
LATER = (401, 404, 408, 429, 500, 502, 503, 504)  # a fresh machine's metadata and role may lag behind
SCALE = float(os.environ["SPOTRELAY_TIME_SCALE"])


class Refused(Exception):
    """A definite no, or no answer after every try."""


class AlreadyThere(Refused):
    """A create-only write met an earlier one."""


def call(make, opener, tries):
    """Body of the answer to make(), which is made anew for every try."""
    problem = ""
    for turn in range(tries):
        time.sleep(min(8, 0.25 * 2 ** turn) * random.uniform(0.5, 1) * SCALE if turn else 0)
        asked = make()
        try:
            with opener.open(asked, timeout=15) as answer:
                return answer.read()
        except error.HTTPError as answer:
            # Only the code: S3 repeats the session token in the text of some errors.
            code = re.search(rb'<Code>(\w+)</Code>|"__type"\s*:\s*"([^"]+)"', answer.read(4096))
            word = (code.group(1) or code.group(2)).decode() if code else ""
            problem = "HTTP %d %s" % (answer.code, word)
            if answer.code == 412 or word.endswith("ConditionalCheckFailedException"):
                raise AlreadyThere(problem)
            if answer.code not in LATER:
                break
        except (OSError, http.client.HTTPException) as cause:
            problem = str(cause)
    raise Refused("%s %s: %s" % (asked.get_method(), asked.full_url, problem))


def token():
    headers = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
    make = lambda: request.Request(METADATA + "/latest/api/token", headers=headers, method="PUT")
    return call(make, DIRECT, 10).decode()


def metadata(path, held):
    headers = {"X-aws-ec2-metadata-token": held}
    return call(lambda: request.Request(METADATA + "/latest/meta-data/" + path, headers=headers), DIRECT, 8).decode()


def credentials():
    held, path = token(), "iam/security-credentials/"
    return json.loads(metadata(path + metadata(path, held).split()[0], held))


def keyed(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signed(who, service, region, method, url, body=b"", extra=()):
    """The request with Signature Version 4, every header signed."""
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    parts = parse.urlsplit(url)
    digest = hashlib.sha256(body).hexdigest()
    headers = dict(extra)
    headers.update({"host": parts.netloc, "x-amz-content-sha256": digest, "x-amz-date": at})
    headers["x-amz-security-token"] = who["Token"]
    names = ";".join(sorted(headers))
    lines = "".join("%s:%s\n" % (name, headers[name]) for name in sorted(headers))
    scope = "/".join((at[:8], region, service, "aws4_request"))
    canonical = "\n".join((method, parts.path or "/", "", lines, names, digest))
    text = "\n".join(("AWS4-HMAC-SHA256", at, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = ("AWS4" + who["SecretAccessKey"]).encode()
    for part in scope.split("/"):
        key = keyed(key, part)
    form = "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s"
    headers["authorization"] = form % (who["AccessKeyId"], scope, names, keyed(key, text).hex())
    return request.Request(url, data=body or None, headers=headers, method=method)


def endpoint(service, region, bucket=""):
    """The SDKs' own variables first, path style; else AWS, where a bucket has a host of its own."""
    given = os.environ.get("AWS_ENDPOINT_URL_" + service.upper()) or os.environ.get("AWS_ENDPOINT_URL")
    if given:
        return given.rstrip("/") + ("/" + bucket if bucket else "")
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return "https://%s%s.%s.%s" % (bucket + "." if bucket else "", service, region, domain)


def ask(who, service, region, method, url, body=b"", extra=()):
    opener = request.build_opener()
    return call(lambda: signed(who, service, region, method, url, body, extra), opener, 6)


def learn(file, *paths):
    held = token()
    with open(file, "w", newline="", encoding="utf-8") as out:
        out.write("".join(metadata(path, held) + "\0" for path in paths))


def fetch(region, bucket, key, sha256, folder):
    url = endpoint("s3", region, bucket) + "/" + parse.quote(key, safe="/~-_.")
    body = ask(credentials(), "s3", region, "GET", url)
    found = hashlib.sha256(body).hexdigest()
    if found != sha256.lower():
        raise Refused("%s has SHA-256 %s, not the %s of this stack: deploy it again" % (url, found, sha256))
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        archive.extractall(folder)


def report(region, table, bucket, run, generation, status, log):
    """The log into S3 and the exit report into the table; either may fail without the other."""
    with open(log, "rb") as lines:
        text = lines.read()[-65536:]
    who, number = credentials(), "%06d" % int(generation)
    key = "/runs/%s/logs/%s/000000.log" % (run, number)
    body = {"run_id": run, "generation": int(generation), "code": int(status), "stage": "boot", "schema": 1}
    body["tail"] = text[-4096:].decode("utf-8", "replace")[-4000:]
    item = {"pk": {"S": "LIVE#" + run}, "sk": {"S": "REPORT#" + number}, "schema": {"N": "1"}}
    item["body"] = {"S": json.dumps(body)}
    put = {"TableName": table, "Item": item, "ConditionExpression": "attribute_not_exists(sk)"}
    kind = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "DynamoDB_20120810.PutItem"}
    wanted = (
        ("s3", "PUT", endpoint("s3", region, bucket) + key, text,
         {"if-none-match": "*", "content-type": "text/plain; charset=utf-8"}),
        ("dynamodb", "POST", endpoint("dynamodb", region) + "/", json.dumps(put).encode(), kind),
    )
    failures = []
    for service, method, url, data, headers in wanted:
        try:
            ask(who, service, region, method, url, data, headers)
        except AlreadyThere:
            pass  # an earlier report stands, the agent's or our own
        except Refused as cause:
            failures.append(str(cause))
    if failures:
        raise Refused("; ".join(failures))


try:
    {"learn": learn, "fetch": fetch, "report": report}[sys.argv[1]](*sys.argv[2:])
except (Refused, OSError, ValueError, LookupError, zipfile.BadZipFile) as cause:
    sys.exit("spotrelay: %s" % cause)
PYTHON

step="looking for Python 3.11 or newer"
agent_python=
for candidate in "$python" python3.13 python3.12 python3.11 python3.14 python3; do
  if [[ -z $candidate ]] || ! "$candidate" -I -c 'import ssl' 2>/dev/null; then continue; fi
  speaker=${speaker:-$candidate}
  if "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    agent_python=$candidate speaker=$candidate
    break
  fi
done
if [[ -z $speaker ]]; then
  say "no Python at all on this machine: choose an image that has Python 3.11 or newer"
  exit 69
fi

speak() {
  local status=0
  "$speaker" -I "$work/speak.py" "$@" 2>"$work/words" || status=$?
  tee -a "$work/boot.log" <"$work/words" >&2
  return "$status"
}

step="asking the instance metadata service who this machine is"
speak learn "$work/facts" instance-id placement/region tags/instance/spotrelay:run \
  tags/instance/spotrelay:generation tags/instance/spotrelay:launch
{
  IFS= read -r -d '' instance
  IFS= read -r -d '' region
  IFS= read -r -d '' run_tag
  IFS= read -r -d '' generation_tag
  IFS= read -r -d '' launch
} <"$work/facts"

step="reading this machine's tags"
if ! is_run_id "$run_tag" || ! [[ $generation_tag =~ ^[0-9]{1,6}$ && $launch =~ ^[0-9]{1,9}$ ]]; then
  printf -v shown '%q ' "$run_tag" "$generation_tag" "$launch"
  say "the tags spotrelay:run, spotrelay:generation and spotrelay:launch hold no run: $shown"
  exit 65
fi
run=$run_tag
generation=$((10#$generation_tag))
say "this is $instance in $region, attempt $generation of run $run"

step="looking for Python 3.11 or newer"
if [[ -z $agent_python ]]; then
  say "no Python 3.11 or newer on this machine (tried ${python:-none}, python3.13 to python3.11, python3):" \
    "choose an image that has one, or name it in the stack's configuration"
  exit 69
fi

step="fetching the agent from s3://$agent_bucket/$agent_key"
speak fetch "$home_region" "$agent_bucket" "$agent_key" "$agent_sha256" "$work/agent"

export SPOTRELAY_RUN=$run SPOTRELAY_GENERATION=$generation SPOTRELAY_LAUNCH=$launch SPOTRELAY_INSTANCE=$instance
export SPOTRELAY_TABLE=$table SPOTRELAY_BUCKET=$bucket SPOTRELAY_BUS=$bus SPOTRELAY_STACK=$stack
export SPOTRELAY_HOME_REGION=$home_region SPOTRELAY_WORK=$work
export AWS_REGION=$region AWS_DEFAULT_REGION=$region HOME=${HOME:-/root}

# The shell stays as a guard: an agent that cannot start, or is killed, must not leave a machine
# that bills for ever. The archive is unpacked because botocore reads its models as plain files.
step="running the agent"
mkfifo "$work/told"
tee -a "$work/boot.log" <"$work/told" >&2 &
teller=$!
"$agent_python" -I "$work/agent" 2>"$work/told" &
agent=$!
trap 'asked_to_stop=yes; kill -TERM "$agent" 2>/dev/null || true' TERM
status=0
while true; do
  if wait "$agent"; then status=0; else status=$?; fi
  kill -0 "$agent" 2>/dev/null || break
done
wait "$teller" || true # its last words are in the log now
exit "$status"
