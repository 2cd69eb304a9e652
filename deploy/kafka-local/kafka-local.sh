#!/usr/bin/env bash
# Apache Kafka without Docker, for developers and tests: jars from Maven Central, one KRaft node on loopback.
#   kafka-local.sh fetch     copy the broker's jars into the cache (needs Maven; once per version)
#   kafka-local.sh start     fetch if need be, format once, start, wait until it answers; prints host:port
#   kafka-local.sh stop      end the broker, by force if it does not end by itself; its data stay
#   kafka-local.sh status    print host:port, or exit 1
#   kafka-local.sh wipe      stop and remove the data
# Every command may be repeated and may run beside another one.
# Environment: KAFKA_STATE (data, log, pid; default .kafka in the repository), KAFKA_PORT 9092,
#   KAFKA_CONTROLLER_PORT (port + 1), KAFKA_HEAP 1g, XDG_CACHE_HOME (jars; default ~/.cache), JAVA_HOME
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=$(sed -n 's/.*<kafka.version>\(.*\)<\/kafka.version>.*/\1/p' "$here/pom.xml")
jars=${XDG_CACHE_HOME:-$HOME/.cache}/pricetide-kafka/$version
state=${KAFKA_STATE:-$here/../../.kafka}
port=${KAFKA_PORT:-9092}
controller=${KAFKA_CONTROLLER_PORT:-$((port + 1))}
java=${JAVA_HOME:+$JAVA_HOME/bin/}java

die() { echo "kafka-local: $*" >&2; exit 1; }

need_java() {
  command -v "$java" >/dev/null 2>&1 || die "no Java found: install a Java runtime, 17 or newer (Debian: openjdk-17-jre-headless), or use Docker"
  local major
  major=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
  [ "${major:-0}" -ge 17 ] || die "Kafka $version needs Java 17 or newer, $java is ${major:-unknown}: install it or set JAVA_HOME"
}

fetch() {
  [ -d "$jars" ] && return
  command -v mvn >/dev/null 2>&1 || die "no Maven found, and the jars of Kafka $version are not in $jars: install Maven (Debian: maven), or use Docker"
  mkdir -p "$(dirname "$jars")"
  lock "$jars.lock"
  [ -d "$jars" ] && return  # another fetch was first
  local fresh=$jars.partial
  rm -rf "$fresh"
  echo "fetching the jars of Kafka $version" >&2
  if ! mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$fresh" -DincludeScope=runtime >&2; then
    die "Maven could not fetch the jars of Kafka $version: see its message above"
  fi
  mv "$fresh" "$jars"
}

# The pid file may outlive its process and the number be given to another one: the command line tells.
alive() {
  [ -f "$state/pid" ] && ps -ww -p "$(cat "$state/pid")" -o args= 2>/dev/null | grep -qF "kafka.Kafka $state/server.properties"
}

# Hold a lock file until this script ends; one whose owner is gone is taken over.
held=()
lock() {
  local tries=0 owner
  until (set -o noclobber; echo $$ > "$1") 2>/dev/null; do
    owner=$(cat "$1" 2>/dev/null || true)
    if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then rm -f "$1"; continue; fi
    tries=$((tries + 1))
    [ $tries -lt 600 ] || die "process ${owner:-unknown} has held $1 for two minutes: end it, or remove the file"
    sleep 0.2
  done
  held+=("$1")
  trap 'rm -f "${held[@]}"' EXIT
}

format() {
  sed -e "s#@DIR@#$state#g" -e "s#@PORT@#$port#g" -e "s#@CONTROLLER@#$controller#g" "$here/server.properties" > "$state/server.properties"
  [ -f "$state/data/meta.properties" ] && return
  local tool=("$java" -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*" kafka.tools.StorageTool)
  "${tool[@]}" format --standalone -t "$("${tool[@]}" random-uuid | tail -1)" -c "$state/server.properties" >&2
}

launch() {
  local detach=()
  command -v setsid >/dev/null 2>&1 && detach=(setsid)  # a Ctrl-C in the terminal must not end the broker
  # Beside a worker on two cores, the second compiler took two to seven seconds of CPU per job of half a minute, and in some jobs
  # G1's marking threads took five more. A broker that runs for weeks needs neither of these flags.
  ${detach[@]+"${detach[@]}"} nohup "$java" -Xms256m -Xmx"${KAFKA_HEAP:-1g}" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
    -Djava.awt.headless=true -Dorg.slf4j.simpleLogger.defaultLogLevel=info -Dorg.slf4j.simpleLogger.showDateTime=true \
    -cp "$jars/*" kafka.Kafka "$state/server.properties" > "$state/server.log" 2>&1 < /dev/null &
  echo $! > "$state/pid"
}

start() {
  need_java
  fetch
  lock "$state/lock"
  if alive; then
    sed -n 's#^listeners=PLAINTEXT://\([^,]*\),.*#\1#p' "$state/server.properties"
    return
  fi
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && die "port $port is taken by something else: stop it, or set KAFKA_PORT"
  format
  launch
  for _ in $(seq 120); do
    alive || { tail -20 "$state/server.log" >&2; die "the broker ended while it started; its log is $state/server.log"; }
    if grep -q 'Kafka Server started' "$state/server.log" && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "127.0.0.1:$port"
      return
    fi
    sleep 0.5
  done
  die "the broker is not up after 60 s; its log is $state/server.log"
}

stop() {
  lock "$state/lock"
  if alive; then
    local pid
    pid=$(cat "$state/pid")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 60); do alive || break; sleep 0.25; done
    if alive; then kill -9 "$pid" 2>/dev/null || true; fi
  fi
  rm -f "$state/pid"
}

mkdir -p "$state"
state=$(cd "$state" && pwd)
case ${1:-} in
  fetch) fetch ;;
  start) start ;;
  stop) stop ;;
  status) alive && sed -n 's#^listeners=PLAINTEXT://\([^,]*\),.*#\1#p' "$state/server.properties" ;;
  wipe) stop; rm -rf "$state" ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
