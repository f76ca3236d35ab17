#!/usr/bin/env bash
# The whole loop with real processes: a model behind an address is made lean, released and served beside it; the
# traffic changes domain, then the lean model breaks. Nobody presses anything: the drift alarm fires, the route rolls
# back, the failures are named, and the next round yields a release that handles them.
#
#   PYTHON=.venv/bin/python examples/loop.sh [FOLDER [made|clinc150]]     (or `make loop`; needs the extra `serve`)
#
# The requests are made up, or those of CLINC150 with MiniLM as the large model (under $JETTISON_SHARED, by default
# ../shared; needs the extra `train` too). It ends with exit code 1 at the first promised step that does not happen.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)/loop
python=${PYTHON:-python3}
folder=${1:-$(mktemp -d)}
data=${2:-made}
shared=$(realpath -m "${JETTISON_SHARED:-$here/../../../shared}")
case $data in
  made)
    words="travel flight hotel train trip"
    labels="" margin=0.02 later="shop.jsonl travel.jsonl" least_new=0.95 least_known=0.97 least_lean=0.85 n_mixed=1800 ;;
  clinc150)
    words="travel flight flights hotel trip luggage visa plug timezone vaccines vaccine car rental rent translate country"
    labels=travel-labels.txt margin=0.06 later="shop-later.jsonl travel-later.jsonl" least_new=0.90 least_known=0.93 least_lean=0.5 n_mixed=3600
    if [ ! -d "$shared/data/clinc150" ] || [ ! -d "$shared/models/clinc-minilm" ]; then
      echo "skipped: no data/clinc150 and models/clinc-minilm in $shared. Name their folder in JETTISON_SHARED."; exit 0
    fi ;;
  *) echo "the data must be made or clinc150, got $data." >&2; exit 2 ;;
esac
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
mkdir -p "$folder"
if [ -n "$(ls -A "$folder")" ]; then echo "the folder must be empty, got $folder. Name a new one." >&2; exit 2; fi
cd "$folder"
started=$(date +%s.%N)
pids=() # of processes themselves: a function in the background would be a shell around one

jettison() { "$python" -m jettison.cli "$@"; }
since() { "$python" -c "import sys; print(f'{float(sys.argv[2]) - float(sys.argv[1]):.1f}')" "$1" "$(date +%s.%N)"; }
say() { printf '%6s s  %s\n' "$(since "$started")" "$*"; }
fail() { say "FAILED: $*"; exit 1; }
stop() {
  local code=$?
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  if [ "$code" != 0 ]; then tail -n 5 ./*.log 2>/dev/null || true; fi
}
trap stop EXIT
wait_for() { # SECONDS FILE PATTERN
  for _ in $(seq $(($1 * 10))); do
    if grep -qs -- "$3" "$2"; then return 0; fi
    sleep 0.1
  done
  fail "no '$3' in $2 within $1 s"
}
field() { "$python" -c 'import json, sys; v = json.load(sys.stdin)
for k in sys.argv[1].split("."): v = v[int(k)] if isinstance(v, list) else v[k]
print(v)' "$1"; }
link() { ln -sfn "$1" lean.new && mv -T lean.new lean; } # at once, or the gateway sees nothing for a moment

# 1. What a team has today: data, and a large model behind an address.
if [ "$data" = made ]; then "$python" "$here/shop.py" .; else "$python" "$here/clinc.py" . "$shared"; fi
"$python" "$here/incumbent.py" incumbent --port-file incumbent.port >incumbent.log 2>&1 &
pids+=($!)
wait_for 120 incumbent.port '[0-9]'
incumbent="http://127.0.0.1:$(cat incumbent.port)/v1"
say "a large model answers at $incumbent"

# 2. A lean one takes its place, by proof.
cat >jettison.toml <<END
format = 1
task = "task.toml"
incumbent = "$incumbent"
output = "first"
usd_per_hour = 0.0856
n_cost_tasks = 30
cost_s = 0.5
[endpoint]
model = "large"
usd_per_million_input = 2.0
usd_per_million_output = 8.0
[[recipes]]
name = "linear"
steps = [{ step = "distill_linear", epochs = 8 }]
[[gates]]
type = "not_worse"
margin = $margin
END
jettison run jettison.toml >first.log 2>&1 || fail "the first run released nothing: $(tail -n 3 first.log)"
say "released: $(grep -m1 '^SHIP' first.log)"
# A second one, proved on labels that an export shifted by one: its proof is in order, and its answers are wrong.
sed -e 's/task.toml/wrong.toml/; s/"first"/"wrong"/; s/^margin = .*/&\nslices = ["all"]/' jettison.toml >wrong-run.toml
jettison run wrong-run.toml >wrong.log 2>&1 || fail "the wrong run released nothing: $(tail -n 3 wrong.log)"

# 3. The gateway: half of the users get the lean model with the large one behind it.
link first/release
cat >serve.toml <<END
release = "lean"
state = "state"
port = 0
audit_share = 0.2
[log]
text = "keep"
[upstreams.incumbent]
url = "$incumbent"
model = "large"
usd_per_million_input = 2.0
usd_per_million_output = 8.0
[route]
type = "split"
treatment_share = 0.5
salt = "desk"
control = {type = "single", candidate = "upstream:incumbent"}
[route.treatment]
type = "cascade"
threshold = 0.6
lean = {type = "single", candidate = "release"}
fallback = {type = "single", candidate = "upstream:incumbent"}
END
"$python" -m jettison.cli serve --config serve.toml --ui >serve.log 2>&1 &
pids+=($!)
wait_for 120 serve.log 'pages at'
gateway=$(grep -o 'http://127[^/ ]*' serve.log | head -n 1)
say "the gateway listens on $gateway, its $(grep -o 'pages at.*' serve.log)"
jettison experiment start desk-1 --state state --metric label:primary:0.03 --metric errors:guardrail:0.02 >experiment.log
"$python" -m jettison.cli monitor state --release first/release --every 0.3 --alert alerts.jsonl >monitor.log 2>&1 &
pids+=($!)
traffic() { "$python" "$here/traffic.py" "$gateway" "$@" >>traffic.log || fail "traffic: $(tail -n 1 traffic.log)"; tail -n 1 traffic.log; }

# 4. An ordinary day: nothing may be said.
day=$(traffic --texts shop.jsonl --n 600 --seed 1)
say "an ordinary day: $day"
sleep 1
if [ -s alerts.jsonl ]; then fail "an alarm on clean traffic: $(cat alerts.jsonl)"; fi

# 5. The domain changes: four of ten ask about travel.
at=$(date +%s.%N)
switched=$(traffic --texts shop.jsonl travel.jsonl --second-share 0.4 --n 2000 --seed 2 --until alerts.jsonl '"drift"')
say "drift alarm after $(field n <<<"$switched") requests and $(since "$at") s: $switched"
mixed=$(traffic --texts shop.jsonl travel.jsonl --second-share 0.4 --n $n_mixed --seed 3)
jettison drift state --release first/release --last 600 >drift.log && fail "one look finds no drift: $(head -n 1 drift.log)"
say "one look agrees: $(head -n 1 drift.log)"

# 6. The lean model breaks. A file changed by hand is refused; a wrong build with a proof is not, and the experiment finds it.
cp -r first/release tampered
chmod -R u+w tampered
printf 'x' >>"$(find tampered/candidates/0 -name model.safetensors | head -n 1)"
link tampered
wait_for 60 serve.log 'reload_refused'
say "a release with a changed file is refused, the old one goes on"
at=$(date +%s.%N)
link wrong/release
wait_for 60 serve.log '"reloaded"'
rolled=$(traffic --texts shop.jsonl travel.jsonl --second-share 0.4 --n 4000 --seed 4 --until alerts.jsonl experiment_rolled_back)
say "rolled back after $(field n <<<"$rolled") requests and $(since "$at") s: $rolled"
wait_for 5 state/control.json '"treatment_share": *0.0'
sleep 1
after=$(traffic --texts shop.jsonl travel.jsonl --second-share 0.4 --n 100 --seed 5)
[ "$(field by.control <<<"$after")" = 100 ] || fail "the lean model still answers: $after"
say "everybody gets the large model again: $after"
jettison experiment status desk-1 --state state >status.log && fail "the experiment's status is no rollback"

# 7. What were the failures? A person looks at the modes and accepts one.
jettison mine state --task task.toml --rows 600 --output state/mined >mined.log
mode=$("$python" "$here/accept.py" state/mined travel $words ${labels:+--labels "$labels"}) || fail "no failure mode names travel: $(head -n 20 mined.log)"
say "mined: $mode"

# 8. Round again with that traffic: the mode is a required slice now.
jettison run jettison.toml --from-traffic state --accepted state/mined/proposed.jsonl --output next >next.log 2>&1 ||
  fail "the next run released nothing: $(tail -n 5 next.log)"
grep -q 'failure=travel' next/task/jettison.toml || fail "the mode is no required slice"
say "released: $(grep -m1 '^SHIP' next.log)"

# 9. The new release serves, and answers by itself what the old one had to pass on.
release=next/task-run/release
[ -f "$release/release.json" ] || fail "the next run left no release"
n_reloads=$(grep -c '"reloaded"' serve.log)
link "$release"
for _ in $(seq 600); do [ "$(grep -c '"reloaded"' serve.log)" -gt "$n_reloads" ] && break; sleep 0.1; done
[ "$(grep -c '"reloaded"' serve.log)" -gt "$n_reloads" ] || fail "the gateway did not take the next release up"
jettison experiment start desk-2 --state state --metric label:primary:0.03 --metric errors:guardrail:0.02 >>experiment.log
sleep 1
now=$(traffic --texts $later --second-share 0.4 --n 500 --seed 6)
"$python" - "$mixed" "$now" $least_new $least_known $least_lean <<'END' || fail "the next release does not handle the new domain: before $mixed, now $now"
import json, sys
before, now = (json.loads(text) for text in sys.argv[1:3])
new, known, lean = map(float, sys.argv[3:])
is_right = now["right"]["new"] >= new and now["right"]["known"] >= known
sys.exit(not (is_right and now["lean_share_new"] >= lean and now["lean_share_new"] > before["lean_share_new"]))
END
jettison experiment status desk-2 --state state >status-2.log || fail "the next experiment: $(head -n 1 status-2.log)"
say "the next release answers $(field lean_share_new <<<"$now") of the new domain itself, before $(field lean_share_new <<<"$mixed"): $now; before: $mixed"
"$python" - "$gateway" "$(grep -o 'with the key .*' serve.log | cut -d ' ' -f 4)" <<'END' || fail "the pages do not tell it"
import sys, time, urllib.error, urllib.request
def page(path):
    asked = urllib.request.Request(f"{sys.argv[1]}/ui/{path}", headers={"authorization": f"Bearer {sys.argv[2]}"})
    return urllib.request.urlopen(asked, timeout=150).read().decode()
def tells(path, word): # the first look starts the process that makes the pages, and that reads the log
    try:
        return word in page(path)
    except urllib.error.HTTPError:
        return False
until = time.monotonic() + 180
for path, word in {"experiments": "ROLLED BACK", "alarms": "drift", "failures": "rising", "releases": "SHIP"}.items():
    while not tells(path, word):
        assert time.monotonic() < until, f"no {word} on /ui/{path}"
        time.sleep(1)
END
say "the pages tell all of it; everything is in $folder"
