# shellcheck shell=bash
# What the scripts of this folder know of the running platform: its containers, their health, the
# api's address and its token. Sourced after lib.sh, not run.

health_wait_s=${HEALTH_WAIT_S:-120}
most_restarts=4

compose() {
    "$root/deploy/compose" "$@"
}

containers_of() {
    docker ps --all --quiet --filter label=com.docker.compose.project=millrace \
        --filter "label=com.docker.compose.service=$1"
}

# check_replicas: RUNNERS, API and SCHEDULERS are whole numbers, where they are given.
check_replicas() {
    local name
    for name in RUNNERS API SCHEDULERS; do
        [[ ${!name:-1} =~ ^[1-9][0-9]?$ ]] ||
            fail "$name=${!name} is no number of replicas: give one from 1 to 99"
    done
}

# replicas_of SERVICE: how many there are to be: as many as is given, else as there are.
replicas_of() {
    local there
    there=$(containers_of "$1" | wc -l)
    case $1 in
        runner) echo "${RUNNERS:-$((there > 0 ? there : 1))}" ;;
        scheduler) echo "${SCHEDULERS:-$((there > 0 ? there : 1))}" ;;
        # The first one is a service of its own.
        api-replica) echo $((${API:-$((there + 1))} - 1)) ;;
    esac
}

# is_healthy CONTAINER: run its own health check now, rather than wait for the engine to do so.
is_healthy() {
    local check
    check=$(docker inspect -f '{{index .Config.Healthcheck.Test 1}}' "$1") &&
        timeout 5 docker exec "$1" sh -c "$check" >/dev/null 2>&1
}

restarts() {
    docker inspect -f '{{.RestartCount}}' "$1"
}

# not_healthy SERVICE CONTAINER WHAT
not_healthy() {
    docker logs --tail 50 "$2" >"$log_dir/$1.log" 2>&1 || true
    fail "$1 $3: $(last_words "$log_dir/$1.log") (log: .cache/log/$1.log, or make logs)"
}

wait_until_healthy() {
    local service=$1 container containers restarts_before until=$((SECONDS + health_wait_s))
    containers=$(containers_of "$service")
    [[ -n $containers ]] || return 0
    for container in $containers; do
        restarts_before=$(restarts "$container")
        until is_healthy "$container"; do
            if (($(restarts "$container") - restarts_before >= most_restarts)); then
                not_healthy "$service" "$container" "stops as often as it is started"
            fi
            if ((SECONDS >= until)); then
                not_healthy "$service" "$container" "is not healthy after $health_wait_s s"
            fi
            sleep 0.3
        done
    done
    say "$service is healthy"
}

api_address() {
    echo "http://127.0.0.1:$(compose port api 8080 | sed 's/.*://')"
}

# Where all replicas of the api answer, a line each.
api_addresses() {
    local container
    for container in $(containers_of api) $(containers_of api-replica); do
        echo "http://127.0.0.1:$(docker port "$container" 8080/tcp | sed -n '1s/.*://p')"
    done
}

# A token for the management API, if it asks for one.
token() {
    docker exec "$(containers_of api | head -n 1)" sh -c '[ -z "$JWT_AUTH_KEY" ] || python -c "
import os, time, jwt
print(jwt.encode({\"exp\": time.time() + 60}, os.environ[\"JWT_AUTH_KEY\"]))"'
}
