#!/bin/sh
# A gate for any CI: gate.sh BASE CANDIDATE DATA. Exits as `sparsify audit` does: 0 may ship, 1 may not, more: could not judge.
# Reports go to $REPORTS. Where $REPORTS/accepted.json is, the candidate may be no worse than the one it is about.
set -eu
here=$(dirname "$0")
reports=${REPORTS:-reports}
mkdir -p "$reports"

set -- "$@" --budget "$here/budget.toml"
[ ! -f "$reports/accepted.json" ] || set -- "$@" --baseline "$reports/accepted.json"

base=$1 candidate=$2 data=$3
shift 3
status=0
sparsify audit "$base" "$candidate" --data "$data" "$@" --layers \
  --report "$reports/audit.json" --report "$reports/audit.html" --junit "$reports/junit.xml" || status=$?

case $status in
  0) echo "gate: the candidate may ship" >&2 ;;
  1) echo "gate: the candidate may not ship; $reports/audit.html shows where it drifts" >&2 ;;
  *) echo "gate: the candidate could not be judged (exit $status)" >&2 ;;
esac
exit "$status"
