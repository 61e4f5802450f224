#!/usr/bin/env bash
# Generate the contract's Python code from protos/ into the folder given, beside copies of the same paths.
set -euo pipefail
environment=$1
output=$2
"$environment/bin/python" -m grpc_tools.protoc -Iprotos \
    --plugin=protoc-gen-mypy="$environment/bin/protoc-gen-mypy" \
    --plugin=protoc-gen-mypy_grpc="$environment/bin/protoc-gen-mypy_grpc" \
    --python_out="$output" --grpc_python_out="$output" \
    --mypy_out=quiet:"$output" --mypy_grpc_out=quiet:"$output" \
    protos/gonogo/v1/*.proto
