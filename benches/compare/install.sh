#!/usr/bin/env bash
# Brings the brokers to compare with into a folder, by package name with the ordinary clients:
# Apache Kafka's jars with Maven (Java 17 or later), nats-server with Go.
#   benches/compare/install.sh [FOLDER]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/peers/installed}
nats_version=${NATS_VERSION:-v2.15.0}
mkdir -p "$folder/kafka" "$folder/bin"
folder=$(cd "$folder" && pwd)

for tool in java mvn go; do
    command -v "$tool" >/dev/null || { echo "install.sh: $tool is needed" >&2; exit 1; }
done

cp "$here/peers/kafka-pom.xml" "$folder/kafka/pom.xml"
(cd "$folder/kafka" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs -DincludeScope=runtime)
GOBIN="$folder/bin" go install "github.com/nats-io/nats-server/v2@$nats_version"
"$folder/bin/nats-server" --version
ls "$folder/kafka/libs"/kafka_2.13-*.jar
echo "installed in $folder"
