#!/usr/bin/env bash
# Runs `iolaus bench` and the peers in turns on one disk, and prints the medians and their ratios: benches/peers/run.sh [ROUNDS [JOBS]].
# Needs what a build needs, and PostgreSQL's initdb and pg_ctl (on the path or below /usr/lib/postgresql). Nothing is left behind but
# target directories.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds="${1:-5}" jobs="${2:-20000}" producers=32
directory="$(mktemp -d "$PWD/target/peers.XXXXXX")"
postgres="$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1 || true)"
PATH="$postgres:$PATH"

# The server refuses to run as root.
as_user() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
end() {
  as_user pg_ctl -D "$directory/postgres" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$directory"
}
trap end EXIT

cargo build --release --locked --quiet
for peer in effectum apalis-postgres; do
  cargo build --release --locked --quiet --manifest-path "benches/peers/$peer/Cargo.toml" --target-dir target/peers
done

if [ "$(id -u)" = 0 ]; then chown postgres "$directory"; chmod 755 "$directory"; fi
as_user initdb -D "$directory/postgres" --auth=trust >/dev/null
as_user pg_ctl -D "$directory/postgres" -l "$directory/postgres.log" -w start \
  -o "-c listen_addresses='' -c unix_socket_directories='$directory'" >/dev/null
url="postgres://$(as_user id -un)@%2F${directory//\//%2F}/postgres"
url="${url/@%2F%2F/@%2F}"

for _ in $(seq "$rounds"); do
  target/release/iolaus bench --only throughput --rounds 1 --jobs "$jobs" --producers "$producers" --directory "$directory" --output json
  target/peers/release/peer-effectum "$directory" "$producers" "$jobs"
  # A tenth: it is that much slower.
  target/peers/release/peer-apalis-postgres "$url" "$producers" "$((jobs / 10))"
done | tee "$directory/all.jsonl" | python3 -c '
import json, statistics, sys
both = {}
for line in sys.stdin:
    told = json.loads(line)
    if "throughput" in told:
        rates = told["throughput"]
        both.setdefault("iolaus", []).append(rates["both"])
        both.setdefault("bare loop", []).append(rates["bare_both"])
    else:
        both.setdefault(told["peer"], []).append(told["both"])
    print(line.strip()[:160], file=sys.stderr)
ours = statistics.median(both["iolaus"])
print("| jobs a second, stored and run | median | iolaus is |")
print("|---|---|---|")
for name, values in both.items():
    median = statistics.median(values)
    print(f"| {name} | {median:.0f} | {ours / median:.2f} times |")
'
