#!/bin/sh
# Bring the store's latest model, or VERSION, into every pod: reload.sh NAMESPACE [VERSION]
# A reload reaches the workers of one pod; the Service would pick any one. WINE_API_KEY: a key, where keys are asked for.
set -eu
namespace=$1
body=${2:+{\"version\": \"$2\"\}}
forward=
trap 'test -z "$forward" || kill "$forward"' EXIT

for pod in $(kubectl --namespace "$namespace" get pods --selector app.kubernetes.io/name=wine-api --field-selector status.phase=Running --output name); do
  echo "$pod"
  kubectl --namespace "$namespace" port-forward "$pod" 18000:8000 >/dev/null &
  forward=$!
  curl --fail-with-body --silent --show-error --retry 20 --retry-delay 1 --retry-connrefused --max-time 90 \
    --header 'Content-Type: application/json' ${WINE_API_KEY:+--header "Authorization: Bearer $WINE_API_KEY"} \
    --data "${body:-{\}}" http://127.0.0.1:18000/model/reload
  echo
  kill "$forward"
  wait "$forward" 2>/dev/null || true
  forward=
done
